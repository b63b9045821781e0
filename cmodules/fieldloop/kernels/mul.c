// Product of two tensors with scales of their own.
#include "fieldloop/fl_kernels.h"
#include "requant.h"
#include "rows.h"

typedef struct {
    const fl_mul_params_t *p;
    const fl_add_quant_t *q;
} product_t;

static void product_row(const void *with, int32_t n, const void *a, int32_t a_step, const void *b, int32_t b_step,
                        void *out) {
    const product_t *t = with;
    const fl_add_quant_t *q = t->q;
    const int8_t *left = a;
    const int8_t *right = b;
    int8_t *to = out;
    for (int32_t i = 0; i < n; i++) {
        const int32_t product = (left[i * a_step] - q->a_zero) * (right[i * b_step] - q->b_zero);
        to[i] = fl_offset_clamp(fl_requantize(product, t->p->out), q->out_zero, q->act_min, q->act_max);
    }
}

void fl_mul(const fl_mul_params_t *p, const fl_add_quant_t *q, const fl_broadcast_t *d, const int8_t *a,
            const int8_t *b, int8_t *out) {
    const product_t t = {p, q};
    fl_walk_rows(d, 1, product_row, &t, a, b, out);
}
