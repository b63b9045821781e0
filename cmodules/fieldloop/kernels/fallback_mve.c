// Kernels that have no _mve variant of their own yet are the plain ones.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "kernels/fallback.h"

FL_FALL_BACK_FULLY_CONNECTED(mve)
FL_FALL_BACK_POOL(max, mve)
FL_FALL_BACK_POOL(avg, mve)
FL_FALL_BACK_ADD(mve)

#else
typedef int fl_no_mve_kernels_t;  // a translation unit may not be empty
#endif
