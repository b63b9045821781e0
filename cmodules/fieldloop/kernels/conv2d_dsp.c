// Convolution with the DSP extension: two pixels by two output channels at a time, a multiply-accumulate an instruction.
#include "columns_dsp.h"
#include "finish_dsp.h"
#include "kernels/variants.h"

#if FL_KERNELS == 1

// Sums of two pixels (0, 1) by two channels (a, b).
typedef struct {
    uint32_t a0, a1, b0, b1;
} tile_t;

#if defined(__ARM_FEATURE_DSP) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)

// One quad: 15 instructions for 16 products.
#define QUAD                              \
    "ldmia %[x]!, {r2, r3, r4, r5}\n\t"   \
    "ldr ip, [%[wa]], #4\n\t"             \
    "sxtb16 lr, ip, ror #8\n\t"           \
    "sxtb16 ip, ip\n\t"                   \
    "smlad %[a0], ip, r2, %[a0]\n\t"      \
    "smlad %[a1], ip, r4, %[a1]\n\t"      \
    "smlad %[a0], lr, r3, %[a0]\n\t"      \
    "smlad %[a1], lr, r5, %[a1]\n\t"      \
    "ldr ip, [%[wb]], #4\n\t"             \
    "sxtb16 lr, ip, ror #8\n\t"           \
    "sxtb16 ip, ip\n\t"                   \
    "smlad %[b0], ip, r2, %[b0]\n\t"      \
    "smlad %[b1], ip, r4, %[b1]\n\t"      \
    "smlad %[b0], lr, r3, %[b0]\n\t"      \
    "smlad %[b1], lr, r5, %[b1]\n\t"

// By hand, because it takes every register there is but one, which is the loop's end or its frame pointer.
#define QUADS(code)                                                                                             \
    __asm__ volatile(code                                                                                       \
                     : [x] "+r"(x), [wa] "+r"(wa), [wb] "+r"(wb), [a0] "+r"(a0), [a1] "+r"(a1), [b0] "+r"(b0), \
                       [b1] "+r"(b1)                                                                            \
                     :                                                                                          \
                     : "r2", "r3", "r4", "r5", "ip", "lr", "memory")

static inline __attribute__((always_inline)) tile_t dot(const uint32_t *x, const int8_t *wa, const int8_t *wb,
                                                        int32_t quads, tile_t t) {
    uint32_t a0 = t.a0, a1 = t.a1, b0 = t.b0, b1 = t.b1;
    const uint32_t *end = x + 4 * (quads & ~3);
    while (x != end) {
        QUADS(QUAD QUAD QUAD QUAD);
    }
    end = x + 4 * (quads & 3);
    while (x != end) {
        QUADS(QUAD);
    }
    return (tile_t){a0, a1, b0, b1};
}

#else

static inline tile_t dot(const uint32_t *x, const int8_t *wa, const int8_t *wb, int32_t quads, tile_t t) {
    for (; quads > 0; quads--) {
        const uint32_t a = fl_word(wa), b = fl_word(wb);
        t.a0 = fl_smlad(fl_sxtb16_odd(a), x[1], fl_smlad(fl_sxtb16(a), x[0], t.a0));
        t.a1 = fl_smlad(fl_sxtb16_odd(a), x[3], fl_smlad(fl_sxtb16(a), x[2], t.a1));
        t.b0 = fl_smlad(fl_sxtb16_odd(b), x[1], fl_smlad(fl_sxtb16(b), x[0], t.b0));
        t.b1 = fl_smlad(fl_sxtb16_odd(b), x[3], fl_smlad(fl_sxtb16(b), x[2], t.b1));
        x += 4;
        wa += 4;
        wb += 4;
    }
    return t;
}

#endif

// The last n elements, fewer than four.
static inline tile_t dot_tail(const uint32_t *x, const int8_t *wa, const int8_t *wb, int32_t n, tile_t t) {
    for (int32_t i = 0; i < n; i++) {
        const uint32_t both = fl_word((const int8_t *)(x + i));
        const uint32_t a = (uint32_t)wa[i], b = (uint32_t)wb[i];
        t.a0 = fl_smlabb(both, a, t.a0);
        t.a1 = fl_smlatb(both, a, t.a1);
        t.b0 = fl_smlabb(both, b, t.b0);
        t.b1 = fl_smlatb(both, b, t.b1);
    }
    return t;
}

static const int32_t no_bias = 0;

// The channels of one group for two pixels whose columns lie in scratch.
typedef struct {
    const fl_quant_t *q;
    const int8_t *w;        // [channels, k]
    const int32_t *b;       // [channels] in steps of b_step
    int32_t b_step;         // 0: no bias
    const uint32_t *x;      // the columns
    int32_t k;
    int32_t channels;
    int32_t first;          // channel of the tensor, for its scale
    int32_t twice_zero_1;
    uint32_t near;          // right shifts below it go the short way: FL_NEAR, or 0 where rounding is single
    int clamped;            // to less than int8
} group_t;

// Both pixels of a channel.
typedef struct {
    int32_t p0, p1;
} both_t;

// Far right shifts, left ones, and one rounding: kept out of the loop.
static __attribute__((noinline)) both_t scale_rest(const group_t *g, int32_t c, uint32_t acc0, uint32_t acc1) {
    const int32_t channel = g->first + c;
    const fl_scale_t s = fl_scale_of(&g->q->requant[(uint32_t)channel * g->q->requant_stride]);
    if (g->near != 0 && (uint32_t)s.down < FL_FAR) {
        return (both_t){fl_scale_far(acc0, s, g->twice_zero_1), fl_scale_far(acc1, s, g->twice_zero_1)};
    }
    return (both_t){fl_finish(g->q, NULL, channel, acc0), fl_finish(g->q, NULL, channel, acc1)};
}

static inline both_t scale(const group_t *g, int32_t c, fl_scale_t s, uint32_t acc0, uint32_t acc1) {
    if ((uint32_t)s.down < g->near) {
        return (both_t){fl_scale_near(acc0, s, g->twice_zero_1), fl_scale_near(acc1, s, g->twice_zero_1)};
    }
    return scale_rest(g, c, acc0, acc1);
}

// Channels c and c + second, and as many pairs of them as told.
static void pairs(const group_t *g, int32_t c, int32_t count, int32_t second, int8_t *out0, int8_t *out1) {
    const int32_t k = g->k;
    const int8_t *w = g->w + c * k;
    const int32_t *b = g->b + c * g->b_step;
    const fl_requant_t *r = g->q->requant + (uint32_t)(g->first + c) * g->q->requant_stride;
    const int32_t r_step = (int32_t)g->q->requant_stride;
    out0 += c;
    out1 += c;
    for (; count > 0; count--) {
        const uint32_t ba = (uint32_t)b[0], bb = (uint32_t)b[second * g->b_step];
        tile_t t = dot(g->x, w, w + second * k, k >> 2, (tile_t){ba, ba, bb, bb});
        if (k & 3) {
            t = dot_tail(g->x + (k & ~3), w + (k & ~3), w + second * k + (k & ~3), k & 3, t);
        }
        both_t ya = scale(g, c, fl_scale_of(r), t.a0, t.a1);
        both_t yb = scale(g, c + second, fl_scale_of(r + second * r_step), t.b0, t.b1);
        if (g->clamped) {
            const fl_quant_t *q = g->q;
            ya = (both_t){fl_clamp(ya.p0, q->act_min, q->act_max), fl_clamp(ya.p1, q->act_min, q->act_max)};
            yb = (both_t){fl_clamp(yb.p0, q->act_min, q->act_max), fl_clamp(yb.p1, q->act_min, q->act_max)};
        }
        out0[0] = (int8_t)ya.p0;
        out1[0] = (int8_t)ya.p1;
        out0[second] = (int8_t)yb.p0;
        out1[second] = (int8_t)yb.p1;
        w += 2 * k;
        b += 2 * g->b_step;
        r += 2 * r_step;
        out0 += 2;
        out1 += 2;
        c += 2;
    }
}

static void two_pixels(const group_t *g, int8_t *out0, int8_t *out1) {
    const int32_t second = g->channels > 1;
    pairs(g, 0, g->channels / 2, second, out0, out1);
    if (g->channels % 2 != 0) {
        // the last channel once more with the one before it, or alone as both
        pairs(g, g->channels - 1 - second, 1, second, out0, out1);
    }
}

void fl_conv2d_dsp(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                   const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    const int32_t groups = p->groups > 1 ? p->groups : 1;
    const int32_t w_c = d->in_c / groups;
    if (q->w_zero != 0 || !fl_has_columns(p, w_c)) {
        fl_conv2d_plain(p, q, d, x, w, b, scratch, out);
        return;
    }
    fl_columns_t v = {
        .p = p,
        .d = d,
        .w_c = w_c,
        .k = p->kernel_h * p->kernel_w * w_c,
        .minus = fl_pair_of(-q->x_zero),
        .x_zero = q->x_zero,
    };
    group_t g = {
        .q = q,
        .b_step = b != NULL,
        .x = scratch,
        .k = v.k,
        .channels = d->out_c / groups,
        .twice_zero_1 = 2 * q->out_zero + 1,
        .near = fl_near(q),
        .clamped = fl_is_clamped(q),
    };
    const int32_t pixels = d->out_h * d->out_w;
    for (int32_t i = 0; i < groups; i++) {
        v.x = x + i * w_c;
        g.first = i * g.channels;
        g.w = w + g.first * v.k;
        g.b = b ? b + g.first : &no_bias;
        int8_t *from = out + g.first;
        int32_t oy = 0, ox = 0;
        for (int32_t n = 0; n < pixels; n += 2) {
            int8_t *to[2];
            for (int32_t j = 0; j < 2; j++) {
                to[j] = from;
                fl_column(&v, oy, ox, scratch, j);
                if (n + j + 1 < pixels) {  // an odd last pixel goes as both
                    from += d->out_c;
                    if (++ox == d->out_w) {
                        ox = 0;
                        oy++;
                    }
                }
            }
            two_pixels(&g, to[0], to[1]);
        }
    }
}

#else
typedef int fl_no_conv2d_dsp_t;  // a translation unit may not be empty
#endif
