// Addition of two tensors with scales of their own.
#include "kernels/variants.h"
#include "requant.h"

void fl_add_plain(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t n, const int8_t *a, const int8_t *b,
            int8_t *out) {
    const int32_t one = 1 << p->left_shift;
    for (int32_t i = 0; i < n; i++) {
        int32_t sum = fl_requantize((a[i] - q->a_zero) * one, p->a) + fl_requantize((b[i] - q->b_zero) * one, p->b);
        out[i] = fl_offset_clamp(fl_requantize(sum, p->out), q->out_zero, q->act_min, q->act_max);
    }
}
