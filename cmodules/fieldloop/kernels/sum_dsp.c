// Partial sums with the DSP extension. Inputs are widened once, on the stack, for all output channels.
#include "kernels/variants.h"
#include "sum.h"

#if FL_KERNELS == 1

#include "dot.h"
#include "dsp.h"
#include "sum_lines.h"
#include "sum_tile_dsp.h"

// Elements that are widened at once, of two pixels: as many words.
enum { CHUNK = 64 };

static uint32_t *widen_two(const int8_t *x0, const int8_t *x1, int32_t n, uint32_t minus, uint32_t *to) {
    for (int32_t i = n >> 2; i > 0; i--) {
        const uint32_t a = fl_word(x0), b = fl_word(x1);
        to[0] = fl_sxtab16(minus, a);
        to[1] = fl_sxtab16_odd(minus, a);
        to[2] = fl_sxtab16(minus, b);
        to[3] = fl_sxtab16_odd(minus, b);
        x0 += 4;
        x1 += 4;
        to += 4;
    }
    return to;
}

static uint32_t *widen_one(const int8_t *x, int32_t n, uint32_t minus, uint32_t *to) {
    for (int32_t i = n >> 2; i > 0; i--) {
        const uint32_t a = fl_word(x);
        to[0] = fl_sxtab16(minus, a);
        to[1] = fl_sxtab16_odd(minus, a);
        x += 4;
        to += 2;
    }
    return to;
}

// Channels that the tiles leave: the last one or up to three.
static void rest(const fl_sum_line_t *v, int32_t from, const int8_t *x, const int8_t *w, int32_t n, int32_t *acc) {
    for (int32_t c = from; c < v->out_c; c++) {
        acc[c] = (int32_t)((uint32_t)acc[c] + fl_dot(x, w + c * v->row, n, v->x_zero));
    }
}

// Elements from .. from + n - 1 of a line.
static void chunk(const fl_sum_line_t *v, int32_t from, int32_t n) {
    uint32_t words[CHUNK];
    const uint32_t minus = fl_pair_of(-v->x_zero);
    const int32_t even = v->out_c & ~1, fours = v->out_c & ~3, tail = n & 3;
    const int8_t *w = v->w + from, *x = v->x + from;
    fl_sum_tile_t t = {
        .x = words,
        .row = v->row,
        .skip = v->row - n,
        .x_4 = words + (n - tail),
        .x_end = words + n,
        .w = w,
        .entry = n < 4 ? 0 : 1 + ((n >> 2) & 3),
    };
    void (*const two)(const fl_sum_tile_t *t) = n == 4 ? fl_sum_quad_dsp : fl_sum_two_dsp;
    t.acc = v->acc;
    for (int32_t left = v->pixels >> 1; left > 0; left--) {
        const int8_t *x1 = x + v->x_step;
        uint32_t *end = widen_two(x, x1, n, minus, words);
        for (int32_t i = n - tail; i < n; i++) {
            *end++ = ((uint32_t)(x[i] - v->x_zero) & 0xffffu) | (uint32_t)(x1[i] - v->x_zero) << 16;
        }
        t.acc1 = t.acc + v->out_c;
        t.acc_end = t.acc + even;
        if (even) {
            two(&t);
        }
        if (even < v->out_c) {
            rest(v, even, x, w, n, t.acc);
            rest(v, even, x1, w, n, t.acc1);
        }
        t.acc = t.acc1 + v->out_c;
        x = x1 + (left > 1 || v->pixels & 1 ? v->x_step : 0);
    }
    if (v->pixels & 1) {
        uint32_t *end = widen_one(x, n, minus, words);
        t.x_4 = end;
        for (int32_t i = n - tail; i < n; i++) {
            *end++ = (uint32_t)(x[i] - v->x_zero);
        }
        t.x_end = end;
        t.acc_end = t.acc + fours;
        if (fours) {
            t.skip = 4 * v->row - n;
            fl_sum_one_dsp(&t);
        }
        rest(v, fours, x, w, n, t.acc);
    }
}

static void line(const fl_sum_line_t *v) {
    for (int32_t from = 0; from < v->n; from += CHUNK) {
        chunk(v, from, v->n - from < CHUNK ? v->n - from : CHUNK);
    }
}

void fl_conv2d_sum_dsp(const fl_conv_params_t *p, int32_t x_zero, int32_t w_zero, const fl_map_dims_t *d,
                       const fl_part_t *part, const int8_t *x, const int8_t *w, int32_t *acc) {
    if (w_zero) {
        fl_conv2d_sum_plain(p, x_zero, w_zero, d, part, x, w, acc);
        return;
    }
    fl_sum_lines(p, x_zero, d, part, x, w, acc, line);
}

// Sums of int16 hold this many int8.
enum { SUMMED = 256 };

void fl_pool_sum_dsp(int32_t pixels, int32_t channels, const int8_t *x, int32_t x_step, int32_t *acc) {
    uint32_t *sum = (uint32_t *)acc;
    const int32_t quads = channels & ~3;
    for (int32_t c = 0; c < quads; c += 4) {
        const int8_t *v = x + c;
        for (int32_t left = pixels; left > 0;) {
            int32_t n = left < SUMMED ? left : SUMMED;
            left -= n;
            uint32_t even = 0, odd = 0;
            do {
                const uint32_t word = fl_word(v);
                even = fl_sxtab16(even, word);
                odd = fl_sxtab16_odd(odd, word);
                v += x_step;
            } while (--n);
            sum[c] += (uint32_t)(int32_t)(int16_t)(uint16_t)even;
            sum[c + 1] += (uint32_t)(int32_t)(int16_t)(uint16_t)odd;
            sum[c + 2] += (uint32_t)((int32_t)even >> 16);
            sum[c + 3] += (uint32_t)((int32_t)odd >> 16);
        }
    }
    if (quads < channels) {
        fl_pool_sum_plain(pixels, channels - quads, x + quads, x_step, acc + quads);
    }
}

#else
typedef int fl_no_sum_dsp_t;  // a translation unit may not be empty
#endif
