#include "finish_mve.h"

#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "mve.h"

int32_t fl_all_right_mve(const fl_quant_t *q, int32_t channels) {
    const int32_t n = q->requant_stride ? channels : 1;
    int32_t all = -1;
    for (int32_t i = 0; i < n; i++) {
        all &= q->requant[i].shift;  // keeps its sign while each is negative
    }
    return all < 0;
}

void fl_fold_mve(const fl_quant_t *q, const int8_t *w, const int32_t *b, int32_t channels, int32_t k, int32_t *folded) {
    for (int32_t c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int32_t left = k; left > 0; left -= 16) {
            sum = vaddvaq_s8(sum, vldrbq_z_s8(w, vctp8q((uint32_t)left)));
            w += left < 16 ? left : 16;
        }
        folded[c] = (int32_t)((b ? (uint32_t)b[c] : 0u) - (uint32_t)q->x_zero * (uint32_t)sum);
    }
}

void fl_clamp_map_mve(const fl_quant_t *q, int32_t n, int8_t *out) {
    if (q->act_min == -128 && q->act_max == 127) {
        return;
    }
    const int8x16_t low = vdupq_n_s8((int8_t)q->act_min);
    const int8x16_t high = vdupq_n_s8((int8_t)q->act_max);
    for (; n >= 16; n -= 16, out += 16) {
        vstrbq_s8(out, vminq_s8(vmaxq_s8(vldrbq_s8(out), low), high));
    }
    const mve_pred16_t rest = vctp8q((uint32_t)n);
    vstrbq_p_s8(out, vminq_s8(vmaxq_s8(vldrbq_z_s8(out, rest), low), high), rest);
}

#else
typedef int fl_no_finish_mve_t;  // a translation unit may not be empty
#endif
