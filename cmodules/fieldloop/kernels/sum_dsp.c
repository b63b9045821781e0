// Partial sums with the DSP extension. Inputs are widened once, on the stack, for all output channels.
#include "kernels/variants.h"
#include "sum.h"

#if FL_KERNELS == 1

#include "dsp.h"
#include "sum_lines.h"
#include "sum_tile_dsp.h"

// Elements that are widened at once, of two pixels: as many words.
enum { CHUNK = 64 };

// The words of a quad of which only `n` elements are there; the others count as zero points.
static void widen_some(const int8_t *x, int32_t n, int32_t x_zero, uint32_t to[2]) {
    to[0] = (uint32_t)(x[0] - x_zero) & 0xffffu;
    to[1] = n > 1 ? (uint32_t)(x[1] - x_zero) & 0xffffu : 0u;
    to[0] |= n > 2 ? (uint32_t)(x[2] - x_zero) << 16 : 0u;
}

static const uint32_t *widen_two(const int8_t *x0, const int8_t *x1, int32_t n, int32_t x_zero, uint32_t *to) {
    const uint32_t minus = fl_pair_of(-x_zero);
    for (; n >= 4; n -= 4) {
        const uint32_t a = fl_word(x0), b = fl_word(x1);
        to[0] = fl_sxtab16(minus, a);
        to[1] = fl_sxtab16_odd(minus, a);
        to[2] = fl_sxtab16(minus, b);
        to[3] = fl_sxtab16_odd(minus, b);
        x0 += 4;
        x1 += 4;
        to += 4;
    }
    if (n) {
        widen_some(x0, n, x_zero, to);
        widen_some(x1, n, x_zero, to + 2);
        to += 4;
    }
    return to;
}

static const uint32_t *widen_one(const int8_t *x, int32_t n, int32_t x_zero, uint32_t *to) {
    const uint32_t minus = fl_pair_of(-x_zero);
    for (; n >= 4; n -= 4) {
        const uint32_t a = fl_word(x);
        to[0] = fl_sxtab16(minus, a);
        to[1] = fl_sxtab16_odd(minus, a);
        x += 4;
        to += 2;
    }
    if (n) {
        widen_some(x, n, x_zero, to);
        to += 2;
    }
    return to;
}

// The channels of one pixel that the tiles leave; its words lie in twos, `step` from one quad to the next.
static void rest(const fl_sum_line_t *v, int32_t first, const uint32_t *words, int32_t step, const int8_t *x,
                 const int8_t *w, int32_t n, int32_t *acc) {
    for (int32_t c = first; c < v->out_c; c++) {
        const int8_t *row = w + c * v->row;
        const uint32_t *quad = words;
        uint32_t sum = (uint32_t)acc[c];
        int32_t i = 0;
        for (; i + 4 <= n; i += 4, quad += step) {
            const uint32_t word = fl_word(row + i);
            sum = fl_smlad(fl_sxtb16_odd(word), quad[1], fl_smlad(fl_sxtb16(word), quad[0], sum));
        }
        for (; i < n; i++) {
            sum += (uint32_t)((x[i] - v->x_zero) * row[i]);
        }
        acc[c] = (int32_t)sum;
    }
}

// Elements from .. from + n - 1 of a line.
static void chunk(const fl_sum_line_t *v, int32_t from, int32_t n) {
    uint32_t words[CHUNK];
    // of a quad that is not full, weights are read that belong to no one: not of the last row, behind which nothing need be
    const int32_t tiled = !(n & 3) ? v->out_c : v->row >= 4 ? v->out_c - 1 : 0;
    const int32_t paired = tiled & ~1, fours = tiled & ~3, quads = (n + 3) >> 2;
    const int8_t *w = v->w + from, *x = v->x + from;
    fl_sum_tile_t t = {.x = words, .row = v->row, .skip = v->row - 4 * quads, .w = w, .quads = (uint32_t)quads};
    void (*const two)(const fl_sum_tile_t *t) = quads == 1 ? fl_sum_quad_dsp : fl_sum_two_dsp;
    t.acc = v->acc;
    for (int32_t left = v->pixels; left >= 2; left -= 2) {
        const int8_t *x1 = x + v->x_step;
        t.acc1 = t.acc + v->out_c;
        t.x_end = widen_two(x, x1, n, v->x_zero, words);
        if (paired) {
            t.acc_end = t.acc + paired;
            two(&t);
        }
        if (paired < v->out_c) {
            rest(v, paired, words, 4, x, w, n, t.acc);
            rest(v, paired, words + 2, 4, x1, w, n, t.acc1);
        }
        t.acc = t.acc1 + v->out_c;
        x = x1 + (left > 2 ? v->x_step : 0);
    }
    if (v->pixels & 1) {
        t.x_end = widen_one(x, n, v->x_zero, words);
        if (fours) {
            t.acc_end = t.acc + fours;
            t.skip = 4 * (v->row - quads);
            fl_sum_one_dsp(&t);
        }
        rest(v, fours, words, 2, x, w, n, t.acc);
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
