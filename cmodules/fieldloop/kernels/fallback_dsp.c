// Kernels that have no _dsp variant of their own yet are the plain ones.
#include "kernels/variants.h"

#if FL_KERNELS == 1

#include "kernels/fallback.h"

FL_FALL_BACK_POOL(max, dsp)
FL_FALL_BACK_POOL(avg, dsp)
FL_FALL_BACK_ADD(dsp)

#else
typedef int fl_no_dsp_kernels_t;  // a translation unit may not be empty
#endif
