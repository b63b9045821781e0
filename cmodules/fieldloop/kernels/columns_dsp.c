// Columns of two pixels for the convolution of columns_dsp.h.
#include "columns_dsp.h"

#include "dsp.h"
#include "kernels/variants.h"
#include "taps.h"

#if FL_KERNELS == 1

static void put_half(uint32_t *to, int32_t pixel, int32_t value) {
    const int16_t half = (int16_t)value;
    memcpy((uint8_t *)to + 2 * pixel, &half, 2);
}

// n bytes, and the tail of a column where n is no multiple of 4; `to`: the first word of this pixel.
static void widen(const int8_t *x, int32_t n, const fl_columns_t *v, uint32_t *to, int32_t pixel) {
    const uint32_t minus = v->minus;
    for (; n >= 16; n -= 16) {
        const uint32_t a = fl_word(x), b = fl_word(x + 4), c = fl_word(x + 8), d = fl_word(x + 12);
        to[0] = fl_sxtab16(minus, a);
        to[1] = fl_sxtab16_odd(minus, a);
        to[4] = fl_sxtab16(minus, b);
        to[5] = fl_sxtab16_odd(minus, b);
        to[8] = fl_sxtab16(minus, c);
        to[9] = fl_sxtab16_odd(minus, c);
        to[12] = fl_sxtab16(minus, d);
        to[13] = fl_sxtab16_odd(minus, d);
        x += 16;
        to += 16;
    }
    for (; n >= 4; n -= 4) {
        const uint32_t word = fl_word(x);
        to[0] = fl_sxtab16(minus, word);
        to[1] = fl_sxtab16_odd(minus, word);
        x += 4;
        to += 4;
    }
    to -= 2 * pixel;
    for (; n > 0; n--) {
        put_half(to++, pixel, *x++ - v->x_zero);
    }
}

static void clear(int32_t k, uint32_t *to, int32_t pixel) {
    for (; k >= 4; k -= 4) {
        to[0] = 0;
        to[1] = 0;
        to += 4;
    }
    to -= 2 * pixel;
    for (; k > 0; k--) {
        put_half(to++, pixel, 0);
    }
}

// Words, the last of which may overlap the one before it.
static void copy(int8_t *to, const int8_t *from, int32_t n) {
    if (n < 4) {
        for (int32_t i = 0; i < n; i++) {
            to[i] = from[i];
        }
        return;
    }
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        fl_put_word(to + i, fl_word(from + i));
    }
    fl_put_word(to + n - 4, fl_word(from + n - 4));
}

void fl_column(const fl_columns_t *v, int32_t oy, int32_t ox, uint32_t *scratch, int32_t pixel) {
    const fl_conv_params_t *p = v->p;
    const fl_map_dims_t *d = v->d;
    uint32_t *to = scratch + 2 * pixel;
    if (v->pointwise) {
        widen(v->x + (oy * p->stride_h * d->in_w + ox * p->stride_w) * d->in_c, v->k, v, to, pixel);
        return;
    }
    const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
    const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
    const int32_t rows = ty.end - ty.first, taps = tx.end - tx.first;
    if (rows <= 0 || taps <= 0) {
        clear(v->k, to, pixel);
        return;
    }
    const int8_t *x = v->x + ((ty.start + ty.first * p->dilation_h) * d->in_w + tx.start + tx.first * p->dilation_w) * d->in_c;
    // beyond the last row or tap nothing is read: with one of them the step may not even fit 32 bits
    const int32_t x_row = rows > 1 ? p->dilation_h * d->in_w * d->in_c : 0;
    const int32_t x_tap = taps > 1 ? p->dilation_w * d->in_c : 0;
    const int joined = p->dilation_w == 1 && v->w_c == d->in_c;  // the taps of a row are one run
    const int32_t runs = joined ? 1 : taps;
    const int32_t n = joined ? taps * v->w_c : v->w_c;
    const int32_t w_row = p->kernel_w * v->w_c;
    const int whole = rows == p->kernel_h && taps == p->kernel_w;
    int32_t at = (ty.first * p->kernel_w + tx.first) * v->w_c;
    if (v->w_c % 4 == 0 || v->k == v->w_c) {
        if (!whole) {
            clear(v->k, to, pixel);
        }
        for (int32_t r = 0; r < rows; r++) {
            for (int32_t i = 0; i < runs; i++) {
                widen(x + i * x_tap, n, v, to + at + i * n, pixel);
            }
            x += x_row;
            at += w_row;
        }
        return;
    }
    int8_t stage[FL_COLUMN_STAGE];
    if (!whole) {
        memset(stage, v->x_zero, (size_t)v->k);
    }
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t i = 0; i < runs; i++) {
            copy(stage + at + i * n, x + i * x_tap, n);
        }
        x += x_row;
        at += w_row;
    }
    widen(stage, v->k, v, to, pixel);
}

#else
typedef int fl_no_columns_dsp_t;  // a translation unit may not be empty
#endif
