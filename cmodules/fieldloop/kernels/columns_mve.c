// Four patches beside each other on the map are gathered, where they are small, or copied in whole blocks, all at once;
// others one by one, and those that reach into the padding run by run.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "columns_mve.h"
#include "mve.h"
#include "steps.h"

enum { PIXELS = 4, BLOCK = 16, NEXT_BLOCK = 64 };

static int32_t min(int32_t a, int32_t b) {
    return a < b ? a : b;
}

// Copies n bytes to byte `at` of the column.
static void put(int8_t *to, int32_t at, const int8_t *from, int32_t n) {
    to += at / BLOCK * NEXT_BLOCK;
    int32_t inside = at & (BLOCK - 1);
    if (inside == 0) {
        for (; n >= BLOCK; n -= BLOCK) {
            vstrbq_s8(to, vldrbq_s8(from));
            to += NEXT_BLOCK;
            from += BLOCK;
        }
    }
    while (n > 0) {
        const int32_t m = min(n, BLOCK - inside);
        const mve_pred16_t some = vctp8q((uint32_t)m);
        vstrbq_p_s8(to + inside, vldrbq_z_s8(from, some), some);
        to += NEXT_BLOCK;
        from += m;
        n -= m;
        inside = 0;
    }
}

static void put_zero(int8_t *to, int32_t at, int32_t n, int32_t x_zero) {
    const int8x16_t zeros = vdupq_n_s8((int8_t)x_zero);
    to += at / BLOCK * NEXT_BLOCK;
    int32_t inside = at & (BLOCK - 1);
    if (inside == 0) {
        for (; n >= BLOCK; n -= BLOCK) {
            vstrbq_s8(to, zeros);
            to += NEXT_BLOCK;
        }
    }
    while (n > 0) {
        const int32_t m = min(n, BLOCK - inside);
        vstrbq_p_s8(to + inside, zeros, vctp8q((uint32_t)m));
        to += NEXT_BLOCK;
        n -= m;
        inside = 0;
    }
}

static void fill(int8_t *to, int32_t n, int32_t x_zero) {
    const int8x16_t zeros = vdupq_n_s8((int8_t)x_zero);
    for (; n > 0; n -= BLOCK, to += BLOCK) {
        vstrbq_p_s8(to, zeros, vctp8q((uint32_t)n));
    }
}

static void copy(int8_t *to, const int8_t *from, int32_t n) {
    for (; n > 0; n -= BLOCK, from += BLOCK, to += BLOCK) {
        const mve_pred16_t some = vctp8q((uint32_t)n);
        vstrbq_p_s8(to, vldrbq_z_s8(from, some), some);
    }
}

// A copy of the map within its padding, without gaps, takes the map's place.
static void pad_map(fl_columns_mve_t *c, const fl_map_dims_t *d, int8_t *padded) {
    const int32_t h = (d->out_h - 1) * c->stride_h + c->span_h;
    const int32_t w = (d->out_w - 1) * c->stride_w + c->span_w;
    const int32_t rows = min(d->in_h, h - c->pad_top);
    const int32_t columns = min(d->in_w, w - c->pad_left);
    fill(padded, h * w * d->in_c, c->x_zero);
    for (int32_t y = 0; y < rows; y++) {
        const int8_t *from = c->x + y * d->in_w * c->step;
        int8_t *to = padded + ((y + c->pad_top) * w + c->pad_left) * d->in_c;
        if (c->step == d->in_c) {
            copy(to, from, columns * d->in_c);
            continue;
        }
        for (int32_t i = 0; i < columns; i++) {
            copy(to + i * d->in_c, from + i * c->step, d->in_c);
        }
    }
    c->x = padded;
    c->step = d->in_c;
    c->in_h = h;
    c->in_w = w;
    c->pad_top = c->pad_left = 0;
}

void fl_columns_start_mve(fl_columns_mve_t *c, const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x,
                          int32_t x_zero, int8_t *padded) {
    // field by field: to clear all of it costs as much as a pixel
    c->p = p;
    c->x = x;
    c->x_zero = x_zero;
    c->in_h = d->in_h;
    c->in_w = d->in_w;
    c->in_c = d->in_c;
    c->step = fl_x_step(d);
    c->out_w = d->out_w;
    c->pad_top = p->pad_top;
    c->pad_left = p->pad_left;
    c->stride_h = p->stride_h;
    c->stride_w = p->stride_w;
    c->k = p->kernel_h * p->kernel_w * d->in_c;
    c->pad = -c->k & (BLOCK - 1);
    c->span_h = (p->kernel_h - 1) * p->dilation_h + 1;
    c->span_w = (p->kernel_w - 1) * p->dilation_w + 1;
    const int inside = c->pad_top == 0 && c->pad_left == 0 && c->span_h == 1 && c->span_w == 1;
    if (inside && c->stride_h == 1 && c->stride_w == 1 && d->out_h == d->in_h && d->out_w == d->in_w) {
        c->out_w = c->in_w = d->in_h * d->in_w;  // pixel by pixel: one long row
        c->in_h = 1;
    }
    if (fl_padded_bytes_mve(p, d)) {
        pad_map(c, d, padded);
    }
    const int joined = p->dilation_w == 1 && c->step == d->in_c;
    c->next = c->stride_w * c->step;
    c->runs = joined ? 1 : p->kernel_w;
    c->n = joined ? p->kernel_w * d->in_c : d->in_c;
    // with a single row or tap the step is never taken, and may not even fit 32 bits
    c->x_row = p->kernel_h > 1 && c->span_h <= c->in_h ? p->dilation_h * c->in_w * c->step : 0;
    c->x_tap = p->kernel_w > 1 && c->span_w <= c->in_w ? p->dilation_w * c->step : 0;
    c->gathered = 0;
    const int64_t last = ((int64_t)(c->span_h - 1) * c->in_w + c->span_w) * c->step;
    if (c->n % BLOCK == 0 || c->k + c->pad > FL_GATHERED_MAX || last > UINT16_MAX) {
        return;
    }
    uint16_t *at = c->at;
    for (int32_t i = 0; i < c->pad; i++) {
        *at++ = 0;  // the pad's bytes come from the corner
    }
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        for (int32_t kx = 0; kx < p->kernel_w; kx++) {
            for (int32_t i = 0; i < c->in_c; i++) {
                *at++ = (uint16_t)(ky * c->x_row + kx * c->x_tap + i);
            }
        }
    }
    c->gathered = (c->k + c->pad) / 8;
}

// One kernel row over map row `y`, from map column `x0` on; `at`: its place in the column.
static void put_row(const fl_columns_mve_t *c, int32_t y, int32_t x0, int8_t *to, int32_t at) {
    const int32_t width = c->n / c->in_c;  // pixels a run
    for (int32_t i = 0; i < c->runs; i++, at += c->n, x0 += c->p->dilation_w) {
        const int32_t left = x0 < 0 ? min(-x0, width) : 0;
        int32_t end = min(c->in_w - x0, width);
        end = end < left ? left : end;
        put_zero(to, at, left * c->in_c, c->x_zero);
        if (end > left) {
            put(to, at + left * c->in_c, c->x + (y * c->in_w + x0 + left) * c->step, (end - left) * c->in_c);
        }
        put_zero(to, at + end * c->in_c, (width - end) * c->in_c, c->x_zero);
    }
}

static void gather(const fl_columns_mve_t *c, const int8_t *corner, int8_t *to) {
    const uint16_t *at = c->at;
    for (int32_t i = 0; i < c->gathered; i += 2) {
        vstrbq_s16(to, vldrbq_gather_offset_s16(corner, vldrhq_u16(at)));
        vstrbq_s16(to + 8, vldrbq_gather_offset_s16(corner, vldrhq_u16(at + 8)));
        at += 16;
        to += NEXT_BLOCK;
    }
}

// As gather, of four corners `step` bytes apart.
static void gather_four(const fl_columns_mve_t *c, const int8_t *corner, int32_t step, int8_t *to) {
    const int8_t *one = corner + step, *two = one + step, *three = two + step;
    const uint16_t *at = c->at;
    for (int32_t i = c->gathered / 2; i > 0; i--) {
        const uint16x8_t low = vldrhq_u16(at), high = vldrhq_u16(at + 8);
        vstrbq_s16(to, vldrbq_gather_offset_s16(corner, low));
        vstrbq_s16(to + 8, vldrbq_gather_offset_s16(corner, high));
        vstrbq_s16(to + 16, vldrbq_gather_offset_s16(one, low));
        vstrbq_s16(to + 24, vldrbq_gather_offset_s16(one, high));
        vstrbq_s16(to + 32, vldrbq_gather_offset_s16(two, low));
        vstrbq_s16(to + 40, vldrbq_gather_offset_s16(two, high));
        vstrbq_s16(to + 48, vldrbq_gather_offset_s16(three, low));
        vstrbq_s16(to + 56, vldrbq_gather_offset_s16(three, high));
        at += 16;
        to += NEXT_BLOCK;
    }
}

// Runs of whole blocks, of four corners `step` bytes apart.
static void copy_four(const fl_columns_mve_t *c, const int8_t *corner, int32_t step, int8_t *to) {
    for (int32_t ky = c->p->kernel_h; ky > 0; ky--, corner += c->x_row) {
        const int8_t *run = corner;
        for (int32_t i = c->runs; i > 0; i--, run += c->x_tap) {
            const int8_t *zero = run, *one = zero + step, *two = one + step, *three = two + step;
            for (int32_t n = c->n / BLOCK; n > 0; n--) {
                vstrbq_s8(to, vldrbq_s8(zero));
                vstrbq_s8(to + 16, vldrbq_s8(one));
                vstrbq_s8(to + 32, vldrbq_s8(two));
                vstrbq_s8(to + 48, vldrbq_s8(three));
                zero += BLOCK;
                one += BLOCK;
                two += BLOCK;
                three += BLOCK;
                to += NEXT_BLOCK;
            }
        }
    }
}

// The column of one output pixel; `to` is its first block.
static void one_column(const fl_columns_mve_t *c, int32_t y0, int32_t x0, int8_t *to) {
    const int inside = y0 >= 0 && x0 >= 0 && y0 + c->span_h <= c->in_h && x0 + c->span_w <= c->in_w;
    if (inside && c->gathered) {
        gather(c, c->x + (y0 * c->in_w + x0) * c->step, to);
        return;
    }
    const int32_t row = c->p->kernel_w * c->in_c;
    int32_t at = c->pad;
    for (int32_t ky = 0; ky < c->p->kernel_h; ky++, at += row) {
        const int32_t y = y0 + ky * c->p->dilation_h;
        if (y < 0 || y >= c->in_h) {
            put_zero(to, at, row, c->x_zero);
        } else if (inside && c->runs == 1) {
            put(to, at, c->x + (y * c->in_w + x0) * c->step, row);
        } else {
            put_row(c, y, x0, to, at);
        }
    }
}

void fl_columns_mve(const fl_columns_mve_t *c, int32_t first, int32_t pixels, int8_t *to) {
    int32_t oy = first / c->out_w;
    int32_t ox = first - oy * c->out_w;
    const int32_t y0 = oy * c->stride_h - c->pad_top;
    const int32_t x0 = ox * c->stride_w - c->pad_left;
    const int blocks = c->n % BLOCK == 0;
    if (ox + PIXELS <= c->out_w && y0 >= 0 && x0 >= 0 && y0 + c->span_h <= c->in_h &&
        x0 + (PIXELS - 1) * c->stride_w + c->span_w <= c->in_w && (blocks || c->gathered)) {
        const int8_t *corner = c->x + (y0 * c->in_w + x0) * c->step;
        if (blocks) {
            copy_four(c, corner, c->next, to);
        } else {
            gather_four(c, corner, c->next, to);
        }
        return;
    }
    for (int32_t i = 0; i < PIXELS; i++) {
        one_column(c, oy * c->stride_h - c->pad_top, ox * c->stride_w - c->pad_left, to + BLOCK * i);
        if (first + i + 1 < pixels && ++ox == c->out_w) {
            ox = 0;
            oy++;
        }
    }
}

#else
typedef int fl_no_columns_mve_t;  // a translation unit may not be empty
#endif
