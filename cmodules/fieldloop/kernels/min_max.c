// The smaller or the larger of two tensors of one quantisation: no arithmetic but the clamp.
#include "fieldloop/fl_kernels.h"
#include "requant.h"
#include "rows.h"

typedef struct {
    int32_t smaller, act_min, act_max;
} choice_t;

static void choice_row(const void *with, int32_t n, const void *a, int32_t a_step, const void *b, int32_t b_step,
                       void *out) {
    const choice_t *t = with;
    const int8_t *left = a;
    const int8_t *right = b;
    int8_t *to = out;
    for (int32_t i = 0; i < n; i++) {
        const int32_t l = left[i * a_step];
        const int32_t r = right[i * b_step];
        to[i] = fl_clamp((l < r) == t->smaller ? l : r, t->act_min, t->act_max);
    }
}

void fl_minimum(int32_t act_min, int32_t act_max, const fl_broadcast_t *d, const int8_t *a, const int8_t *b,
                int8_t *out) {
    const choice_t t = {1, act_min, act_max};
    fl_walk_rows(d, 1, choice_row, &t, a, b, out);
}

void fl_maximum(int32_t act_min, int32_t act_max, const fl_broadcast_t *d, const int8_t *a, const int8_t *b,
                int8_t *out) {
    const choice_t t = {0, act_min, act_max};
    fl_walk_rows(d, 1, choice_row, &t, a, b, out);
}
