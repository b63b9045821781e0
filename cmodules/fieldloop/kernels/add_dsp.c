// Addition with the DSP extension, four elements a step.
//
// Of two summands the one of the larger scale has the factor 1/2, so that 20 bits to the left and back again is 19 bits
// to the left and exact. The other is scaled by SMMULR and rounded as finish_dsp.h has it, but kept doubled, because
// the output's SMMULR wants its argument so. No step can leave 32 bits: a centred element has nine.
#include "finish_dsp.h"
#include "kernels/variants.h"

#if FL_KERNELS == 1

typedef struct {
    fl_scale_t small, out;
    uint32_t large_minus, small_minus;  // pairs of -zero point
    int32_t twice_zero_1;
} sum_t;

// One element: the large summand and the small one, centred, in the lower halves of words; the upper do not matter.
static inline int32_t element(const sum_t *s, int same, uint32_t large, uint32_t small) {
    uint32_t twice;
    if (same) {
        twice = (large << 20) + (small << 20);
    } else {
        const int32_t t = (int32_t)fl_smmulr(small << 21, (uint32_t)s->small.multiplier);
        const int32_t v = (t + (t >> 31)) >> s->small.down;
        twice = (large << 20) + ((uint32_t)(v + 1) & ~1u);
    }
    return fl_scale_end((int32_t)fl_smmulr(twice, (uint32_t)s->out.multiplier), s->out.down, s->twice_zero_1);
}

static inline void add(const sum_t *s, int same, const fl_add_quant_t *q, int32_t n, const int8_t *large,
                       const int8_t *small, int8_t *out) {
    const int clamped = q->act_min != -128 || q->act_max != 127;
    const uint32_t low = (uint8_t)q->act_min * 0x01010101u, high = (uint8_t)q->act_max * 0x01010101u;
    for (const int8_t *end = out + n; out != end; out += 4) {
        const uint32_t a = fl_word(large), b = fl_word(small);
        const uint32_t a_even = fl_sxtab16(s->large_minus, a), b_even = fl_sxtab16(s->small_minus, b);
        const uint32_t a_odd = fl_sxtab16_odd(s->large_minus, a), b_odd = fl_sxtab16_odd(s->small_minus, b);
        uint32_t word = (uint8_t)element(s, same, a_even, b_even);
        word |= (uint32_t)(uint8_t)element(s, same, a_odd, b_odd) << 8;
        word |= (uint32_t)(uint8_t)element(s, same, a_even >> 16, b_even >> 16) << 16;
        word |= (uint32_t)element(s, same, a_odd >> 16, b_odd >> 16) << 24;
        if (clamped) {
            word = fl_min8(fl_max8(word, low), high);
        }
        fl_put_word(out, word);
        large += 4;
        small += 4;
    }
}

static int is_half(fl_requant_t r) {
    return r.multiplier == 1 << 30 && r.shift == 0;
}

void fl_add_dsp(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t n, const int8_t *a, const int8_t *b,
                int8_t *out) {
    const int swap = !is_half(p->a);
    const fl_requant_t large = swap ? p->b : p->a, small = swap ? p->a : p->b;
    const int32_t n_4 = n & ~3;
    const int same = is_half(small);
    if (p->left_shift != 20 || !is_half(large) || (small.shift >= 0 && !same) || p->out.shift >= 0) {
        fl_add_plain(p, q, n, a, b, out);
        return;
    }
    const sum_t s = {
        .small = fl_scale_of(&small),
        .out = fl_scale_of(&p->out),
        .large_minus = fl_pair_of(-(swap ? q->b_zero : q->a_zero)),
        .small_minus = fl_pair_of(-(swap ? q->a_zero : q->b_zero)),
        .twice_zero_1 = 2 * q->out_zero + 1,
    };
    if (same) {
        add(&s, 1, q, n_4, a, b, out);
    } else {
        add(&s, 0, q, n_4, swap ? b : a, swap ? a : b, out);
    }
    fl_add_plain(p, q, n - n_4, a + n_4, b + n_4, out + n_4);
}

#else
typedef int fl_no_add_dsp_t;  // a translation unit may not be empty
#endif
