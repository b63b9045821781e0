// Sums and differences of two tensors with scales of their own.
#include "kernels/variants.h"
#include "requant.h"
#include "rows.h"

// `sign`: 1 adds, -1 subtracts.
static inline int8_t sum(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t sign, int32_t a, int32_t b) {
    const int32_t one = 1 << p->left_shift;
    const int32_t s = fl_requantize((a - q->a_zero) * one, p->a) + sign * fl_requantize((b - q->b_zero) * one, p->b);
    return fl_offset_clamp(fl_requantize(s, p->out), q->out_zero, q->act_min, q->act_max);
}

void fl_add_plain(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t n, const int8_t *a, const int8_t *b,
                  int8_t *out) {
    for (int32_t i = 0; i < n; i++) {
        out[i] = sum(p, q, 1, a[i], b[i]);
    }
}

typedef struct {
    const fl_add_params_t *p;
    const fl_add_quant_t *q;
    int32_t sign;
} sum_t;

static void sum_row(const void *with, int32_t n, const void *a, int32_t a_step, const void *b, int32_t b_step,
                    void *out) {
    const sum_t *s = with;
    const int8_t *left = a;
    const int8_t *right = b;
    int8_t *to = out;
    for (int32_t i = 0; i < n; i++) {
        to[i] = sum(s->p, s->q, s->sign, left[i * a_step], right[i * b_step]);
    }
}

void fl_add_broadcast(const fl_add_params_t *p, const fl_add_quant_t *q, const fl_broadcast_t *d, const int8_t *a,
                      const int8_t *b, int8_t *out) {
    const sum_t s = {p, q, 1};
    fl_walk_rows(d, 1, sum_row, &s, a, b, out);
}

void fl_sub(const fl_add_params_t *p, const fl_add_quant_t *q, const fl_broadcast_t *d, const int8_t *a,
            const int8_t *b, int8_t *out) {
    const sum_t s = {p, q, -1};
    fl_walk_rows(d, 1, sum_row, &s, a, b, out);
}
