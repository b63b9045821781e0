// Columns of two pixels for the convolution of columns_dsp.h.
#include "columns_dsp.h"

#include "dsp.h"
#include "kernels/variants.h"
#include "steps.h"
#include "taps.h"

#if FL_KERNELS == 1

#if FL_DSP_ASSEMBLY

#define QUAD                                       \
    "ldr %[odd], [%[x]], #4\n\t"                   \
    "sxtab16 %[even], %[minus], %[odd]\n\t"        \
    "sxtab16 %[odd], %[minus], %[odd], ror #8\n\t" \
    "strd %[even], %[odd], [%[to]], #16\n\t"

// n / 4 quads of one pixel: four instructions each.
static inline void widen_quads(const int8_t *x, int32_t n, uint32_t minus, uint32_t *to) {
    uint32_t even, odd;
    __asm__ volatile(
        "subs %[n], %[n], #16\n\t"
        "blt 2f\n"
        "1:\n\t" QUAD QUAD QUAD QUAD
        "subs %[n], %[n], #16\n\t"
        "bge 1b\n"
        "2:\n\t"
        "adds %[n], %[n], #12\n\t"
        "blt 4f\n"
        "3:\n\t" QUAD
        "subs %[n], %[n], #4\n\t"
        "bge 3b\n"
        "4:\n\t"
        : [x] "+r"(x), [n] "+r"(n), [to] "+r"(to), [even] "=&r"(even), [odd] "=&r"(odd)
        : [minus] "r"(minus)
        : "cc", "memory");
}

#define TWO_QUADS                   \
    "ldr r4, [r0], #4\n"            \
    "ldr r6, [r1], #4\n"            \
    "sxtab16 r5, r8, r4, ror #8\n"  \
    "sxtab16 r4, r8, r4\n"          \
    "sxtab16 r7, r8, r6, ror #8\n"  \
    "sxtab16 r6, r8, r6\n"          \
    "stmia r3!, {r4-r7}\n"

// n / 4 quads of both pixels: seven instructions each.
static __attribute__((naked, noinline)) void widen_two(const int8_t *x0 __attribute__((unused)),
                                                       const int8_t *x1 __attribute__((unused)),
                                                       int32_t n __attribute__((unused)),
                                                       uint32_t *to __attribute__((unused)),
                                                       uint32_t minus __attribute__((unused))) {
    __asm__(
        "push {r4-r8, lr}\n"
        "ldr r8, [sp, #24]\n"  // minus
        "subs r2, #16\n"
        "blt 2f\n"
        "1:\n" TWO_QUADS TWO_QUADS TWO_QUADS TWO_QUADS
        "subs r2, #16\n"
        "bge 1b\n"
        "2:\n"
        "adds r2, #12\n"
        "blt 4f\n"
        "3:\n" TWO_QUADS
        "subs r2, #4\n"
        "bge 3b\n"
        "4:\n"
        "pop {r4-r8, pc}\n");
}

#else

static inline void widen_quads(const int8_t *x, int32_t n, uint32_t minus, uint32_t *to) {
    for (; n >= 4; n -= 4) {
        const uint32_t word = fl_word(x);
        to[0] = fl_sxtab16(minus, word);
        to[1] = fl_sxtab16_odd(minus, word);
        x += 4;
        to += 4;
    }
}

static void widen_two(const int8_t *x0, const int8_t *x1, int32_t n, uint32_t *to, uint32_t minus) {
    widen_quads(x0, n, minus, to);
    widen_quads(x1, n, minus, to + 2);
}

#endif

static inline void put_half(uint32_t *to, int32_t pixel, int32_t value) {
    const int16_t half = (int16_t)value;
    memcpy((uint8_t *)to + 2 * pixel, &half, 2);
}

// A whole column from its bytes, tail included.
static inline void widen(const int8_t *x, const fl_columns_t *v, uint32_t *scratch, int32_t pixel) {
    const int32_t quads = v->k & ~3;
    widen_quads(x, quads, v->minus, scratch + 2 * pixel);
    for (int32_t i = quads; i < v->k; i++) {
        put_half(scratch + i, pixel, x[i] - v->x_zero);
    }
}

// Words, the last of which may overlap the one before it.
static inline void copy(int8_t *to, const int8_t *from, int32_t n) {
    if (n < 4) {
        to[0] = from[0];
        to[n >> 1] = from[n >> 1];
        to[n - 1] = from[n - 1];
        return;
    }
    const int8_t *last = from + n - 4;
    int8_t *to_last = to + n - 4;
    while (from < last) {
        fl_put_word(to, fl_word(from));
        from += 4;
        to += 4;
    }
    fl_put_word(to_last, fl_word(last));
}

static void clear(int32_t k, uint32_t *scratch, int32_t pixel) {
    uint32_t *to = scratch + 2 * pixel;
    const int32_t quads = k & ~3;
    for (int32_t i = 0; i < quads; i += 4) {
        to[i] = 0;
        to[i + 1] = 0;
    }
    for (int32_t i = quads; i < k; i++) {
        put_half(scratch + i, pixel, 0);
    }
}

// Output positions along an axis of which every tap lies on the map.
static uint32_t whole(int32_t out, int32_t stride, int32_t pad, int32_t dilation, int32_t kernel, int32_t size,
                      int32_t *from) {
    *from = (pad + stride - 1) / stride;
    const int64_t room = (int64_t)size - 1 - (int64_t)(kernel - 1) * dilation + pad;  // of the last one's first tap
    const int64_t end = room < 0 ? 0 : (int64_t)((uint32_t)room / (uint32_t)stride) + 1;  // of 32 bits: one instruction
    const int64_t count = (end < out ? end : out) - *from;
    return count > 0 ? (uint32_t)count : 0;
}

fl_columns_t fl_columns(const fl_conv_params_t *p, const fl_map_dims_t *d, int32_t w_c, int32_t x_zero, const int8_t *x) {
    const int32_t step = fl_x_step(d), taps = p->kernel_h * p->kernel_w, row = d->in_w * step;
    const int joined = p->dilation_w == 1 && w_c == step;  // the taps of a row are one run
    fl_columns_t v = {
        .p = p,
        .d = d,
        .x = x,
        .w_c = w_c,
        .k = taps * w_c,
        .minus = fl_pair_of(-x_zero),
        .x_zero = x_zero,
        .staged = w_c % 4 != 0,
        .runs = joined ? 1 : p->kernel_w,
        .n = joined ? p->kernel_w * w_c : w_c,
    };
    v.y_count = whole(d->out_h, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h, &v.y_from);
    v.x_count = whole(d->out_w, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w, &v.x_from);
    if (v.y_count && v.x_count) {  // else the last two may not fit 32 bits
        v.y_step = (uint32_t)p->stride_h * (uint32_t)row;
        v.x_step = (uint32_t)p->stride_w * (uint32_t)step;
        v.origin = (uint32_t)p->pad_top * (uint32_t)row + (uint32_t)p->pad_left * (uint32_t)step;
        v.x_row = p->kernel_h > 1 ? p->dilation_h * row : 0;
        v.x_run = p->kernel_w > 1 ? p->dilation_w * step : 0;
    }
    return v;
}

// Where some taps lie in the padding.
static __attribute__((noinline)) void border(const fl_columns_t *v, int32_t oy, int32_t ox, uint32_t *scratch,
                                             int32_t pixel) {
    const fl_conv_params_t *p = v->p;
    const fl_map_dims_t *d = v->d;
    const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
    const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
    const int joined = v->runs == 1;
    const int32_t step = fl_x_step(d);
    const int32_t n = joined ? (tx.end - tx.first) * v->w_c : v->w_c;
    int8_t stage[FL_COLUMN_STAGE];
    if (ty.first >= ty.end || tx.first >= tx.end) {
        clear(v->k, scratch, pixel);  // nothing is seen: that of a single tap may be longer than the stage
        return;
    }
    if (v->staged) {
        for (int32_t i = 0; i < v->k; i += 4) {
            fl_put_word(stage + i, (uint8_t)v->x_zero * 0x01010101u);
        }
    } else {
        clear(v->k, scratch, pixel);
    }
    for (int32_t r = ty.first; r < ty.end; r++) {
        for (int32_t t = tx.first; t < tx.end; t++) {
            const int32_t at = (r * p->kernel_w + t) * v->w_c;
            const int8_t *x = v->x + ((ty.start + r * p->dilation_h) * d->in_w + tx.start + t * p->dilation_w) * step;
            if (v->staged) {
                copy(stage + at, x, n);
            } else {
                widen_quads(x, n, v->minus, scratch + at + 2 * pixel);
            }
            if (joined) {
                break;  // that was the whole row
            }
        }
    }
    if (v->staged) {
        widen(stage, v, scratch, pixel);
    }
}

void fl_two_columns(const int8_t *x0, const int8_t *x1, int32_t k, int32_t x_zero, uint32_t *scratch) {
    const int32_t quads = k & ~3;
    widen_two(x0, x1, quads, scratch, fl_pair_of(-x_zero));
    for (int32_t i = quads; i < k; i++) {
        put_half(scratch + i, 0, x0[i] - x_zero);
        put_half(scratch + i, 1, x1[i] - x_zero);
    }
}

void fl_column_bytes(const fl_columns_t *v, int32_t oy, int32_t ox, int8_t *to) {
    const fl_conv_params_t *p = v->p;
    const fl_map_dims_t *d = v->d;
    const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
    const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
    const int32_t step = fl_x_step(d);
    if ((ty.end - ty.first) * (tx.end - tx.first) != p->kernel_h * p->kernel_w) {
        for (int32_t i = 0; i < v->k; i += 4) {
            fl_put_word(to + i, (uint8_t)v->x_zero * 0x01010101u);
        }
    }
    for (int32_t r = ty.first; r < ty.end; r++) {
        for (int32_t t = tx.first; t < tx.end; t++) {
            const int8_t *x = v->x + ((ty.start + r * p->dilation_h) * d->in_w + tx.start + t * p->dilation_w) * step;
            copy(to + (r * p->kernel_w + t) * v->w_c, x, v->w_c);
        }
    }
}

void fl_column(const fl_columns_t *v, int32_t oy, int32_t ox, uint32_t *scratch, int32_t pixel) {
    if ((uint32_t)(oy - v->y_from) >= v->y_count || (uint32_t)(ox - v->x_from) >= v->x_count) {
        border(v, oy, ox, scratch, pixel);
        return;
    }
    const int8_t *x = v->x + ((uint32_t)oy * v->y_step + (uint32_t)ox * v->x_step - v->origin);
    const int32_t n = v->n;
    if (!v->staged) {
        uint32_t *to = scratch + 2 * pixel;
        for (int32_t r = v->p->kernel_h; r > 0; r--) {
            const int8_t *run = x;
            for (int32_t i = v->runs; i > 0; i--) {
                widen_quads(run, n, v->minus, to);
                run += v->x_run;
                to += n;
            }
            x += v->x_row;
        }
        return;
    }
    if (n == v->k) {  // one run is all of it
        widen(x, v, scratch, pixel);
        return;
    }
    int8_t stage[FL_COLUMN_STAGE];
    int8_t *to = stage;
    for (int32_t r = v->p->kernel_h; r > 0; r--) {
        const int8_t *run = x;
        for (int32_t i = v->runs; i > 0; i--) {
            copy(to, run, n);
            run += v->x_run;
            to += n;
        }
        x += v->x_row;
    }
    widen(stage, v, scratch, pixel);
}

#else
typedef int fl_no_columns_dsp_t;  // a translation unit may not be empty
#endif
