// Sum, difference, product, minimum and maximum of two f32 tensors.
#include "f32.h"
#include "fieldloop/fl_kernels_f32.h"
#include "rows.h"

typedef struct {
    uint32_t opcode;
    float lo, hi;
} binary_t;

static float combined(uint32_t opcode, float a, float b) {
    switch (opcode) {
    case FL_OP_ADD:
        return a + b;
    case FL_OP_SUB:
        return a - b;
    case FL_OP_MUL:
        return a * b;
    case FL_OP_MINIMUM:
        return b < a ? b : a;
    default:
        return b > a ? b : a;
    }
}

static void binary_row(const void *with, int32_t n, const void *a, int32_t a_step, const void *b, int32_t b_step,
                       void *out) {
    const binary_t *t = with;
    const float *left = a;
    const float *right = b;
    float *to = out;
    for (int32_t i = 0; i < n; i++) {
        to[i] = fl_clamp_f32(combined(t->opcode, left[i * a_step], right[i * b_step]), t->lo, t->hi);
    }
}

void fl_binary_f32(uint32_t opcode, float lo, float hi, const fl_broadcast_t *d, const float *a, const float *b,
                   float *out) {
    const binary_t t = {opcode, lo, hi};
    fl_walk_rows(d, 4, binary_row, &t, a, b, out);
}
