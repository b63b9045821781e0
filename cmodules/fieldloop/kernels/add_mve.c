// Addition, four elements at a time. Both summands come to their common scale by a rounding product; the one with the
// larger scale of the two often needs no shift behind it, and so no rounding.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "mve.h"

// v * multiplier, shifted right by -shift >= 1, halves away from zero.
static inline int32x4_t scale_right(int32x4_t v, fl_requant_t r) {
    return vrshlq_n_s32(vqrdmlahq_n_s32(vshrq_n_s32(v, 31), v, r.multiplier), r.shift);
}

static inline int32x4_t scale(int32x4_t v, fl_requant_t r, int32_t right) {
    return right ? scale_right(v, r) : vqrdmulhq_n_s32(v, r.multiplier);
}

typedef struct {
    fl_requant_t a, b, out;
    int32_t left_shift;
    int32_t a_base, b_base;  // minus the zero points, shifted
    int32_t zero;
    int32x4_t low, high;
} sum_t;

static inline int32x4_t sum(const sum_t *s, int32_t a_right, int32_t b_right, int32x4_t a, int32x4_t b) {
    a = scale(vaddq_n_s32(vshlq_r_s32(a, s->left_shift), s->a_base), s->a, a_right);
    b = scale(vaddq_n_s32(vshlq_r_s32(b, s->left_shift), s->b_base), s->b, b_right);
    const int32x4_t y = scale_right(vaddq_s32(a, b), s->out);
    return vminq_s32(vmaxq_s32(vaddq_n_s32(y, s->zero), s->low), s->high);
}

// Inlined for each case: whether a and b are shifted right.
static inline void all(const sum_t *in_memory, int32_t a_right, int32_t b_right, int32_t n, const int8_t *a,
                       const int8_t *b, int8_t *out) {
    const sum_t s = *in_memory;
    for (int32_t i = n / 4; i > 0; i--) {
        vstrbq_s32(out, sum(&s, a_right, b_right, vldrbq_s32(a), vldrbq_s32(b)));
        a += 4;
        b += 4;
        out += 4;
    }
    const mve_pred16_t some = vctp32q((uint32_t)n % 4);
    vstrbq_p_s32(out, sum(&s, a_right, b_right, vldrbq_z_s32(a, some), vldrbq_z_s32(b, some)), some);
}

void fl_add_mve(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t n, const int8_t *a, const int8_t *b,
                int8_t *out) {
    if (p->a.shift > 0 || p->b.shift > 0 || p->out.shift >= 0) {
        fl_add_plain(p, q, n, a, b, out);
        return;
    }
    sum_t s = {.a = p->a, .b = p->b, .out = p->out, .left_shift = p->left_shift, .zero = q->out_zero};
    s.a_base = -q->a_zero * (1 << p->left_shift);
    s.b_base = -q->b_zero * (1 << p->left_shift);
    s.low = vdupq_n_s32(q->act_min);
    s.high = vdupq_n_s32(q->act_max);
    if (p->a.shift < 0 && p->b.shift < 0) {
        all(&s, 1, 1, n, a, b, out);
    } else if (p->a.shift < 0) {
        all(&s, 1, 0, n, a, b, out);
    } else if (p->b.shift < 0) {
        all(&s, 0, 1, n, a, b, out);
    } else {
        all(&s, 0, 0, n, a, b, out);
    }
}

#else
typedef int fl_no_add_mve_t;  // a translation unit may not be empty
#endif
