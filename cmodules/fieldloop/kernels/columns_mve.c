// A patch that lies on the map is gathered, when it is small, or copied in whole blocks; all else goes run by run.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "columns_mve.h"
#include "mve.h"

enum { BLOCK = 16, NEXT_BLOCK = 64 };

void fl_columns_start_mve(fl_columns_mve_t *c, const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x,
                          int32_t x_zero) {
    c->p = p;
    c->d = d;
    c->x = x;
    c->x_zero = x_zero;
    c->k = p->kernel_h * p->kernel_w * d->in_c;
    c->pad = -c->k & (BLOCK - 1);
    c->span_h = (p->kernel_h - 1) * p->dilation_h + 1;
    c->span_w = (p->kernel_w - 1) * p->dilation_w + 1;
    c->runs = p->dilation_w == 1 ? 1 : p->kernel_w;
    c->n = p->dilation_w == 1 ? p->kernel_w * d->in_c : d->in_c;
    c->gathered = 0;
    // the farthest byte is counted as if the map were large, so that no product can overflow
    const int64_t last = ((int64_t)(c->span_h - 1) * d->in_w + c->span_w) * d->in_c;
    if (c->n % BLOCK == 0 || c->k + c->pad > FL_GATHERED_MAX || last > UINT16_MAX) {
        return;
    }
    uint16_t *at = c->at;
    for (int32_t i = 0; i < c->pad; i++) {
        *at++ = 0;
    }
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        for (int32_t kx = 0; kx < p->kernel_w; kx++) {
            for (int32_t i = 0; i < d->in_c; i++) {
                *at++ = (uint16_t)((ky * p->dilation_h * d->in_w + kx * p->dilation_w) * d->in_c + i);
            }
        }
    }
    c->gathered = (c->k + c->pad) / 8;
}

// Copies n bytes to byte `at` of the column.
static void put(int8_t *to, int32_t at, const int8_t *from, int32_t n) {
    while (n > 0) {
        const int32_t inside = at & (BLOCK - 1);
        const int32_t m = n < BLOCK - inside ? n : BLOCK - inside;
        const mve_pred16_t some = vctp8q((uint32_t)m);
        vstrbq_p_s8(to + at / BLOCK * NEXT_BLOCK + inside, vldrbq_z_s8(from, some), some);
        at += m;
        from += m;
        n -= m;
    }
}

static void put_zero(int8_t *to, int32_t at, int32_t n, int32_t x_zero) {
    const int8x16_t zeros = vdupq_n_s8((int8_t)x_zero);
    while (n > 0) {
        const int32_t inside = at & (BLOCK - 1);
        const int32_t m = n < BLOCK - inside ? n : BLOCK - inside;
        vstrbq_p_s8(to + at / BLOCK * NEXT_BLOCK + inside, zeros, vctp8q((uint32_t)m));
        at += m;
        n -= m;
    }
}

// One kernel row over map row `y`, from map column `x0` on; `at`: its place in the column.
static void put_row(const fl_columns_mve_t *c, int32_t y, int32_t x0, int8_t *to, int32_t at) {
    const fl_map_dims_t *d = c->d;
    const int32_t width = c->n / d->in_c;  // pixels a run
    for (int32_t i = 0; i < c->runs; i++, at += c->n, x0 += c->p->dilation_w) {
        const int32_t left = x0 < 0 ? (-x0 < width ? -x0 : width) : 0;
        int32_t end = d->in_w - x0 < width ? d->in_w - x0 : width;
        end = end < left ? left : end;
        put_zero(to, at, left * d->in_c, c->x_zero);
        if (end > left) {
            put(to, at + left * d->in_c, c->x + (y * d->in_w + x0 + left) * d->in_c, (end - left) * d->in_c);
        }
        put_zero(to, at + end * d->in_c, (width - end) * d->in_c, c->x_zero);
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

// Runs of whole blocks.
static void copy_blocks(const fl_columns_mve_t *c, const int8_t *corner, int8_t *to) {
    const int32_t row = c->p->dilation_h * c->d->in_w * c->d->in_c;
    const int32_t step = c->p->dilation_w * c->d->in_c;
    for (int32_t ky = 0;;) {
        const int8_t *from = corner;
        for (int32_t i = 0; i < c->runs; i++) {
            const int8_t *run = from;
            for (int32_t n = c->n / BLOCK; n > 0; n--) {
                vstrbq_s8(to, vldrbq_s8(run));
                run += BLOCK;
                to += NEXT_BLOCK;
            }
            if (i + 1 < c->runs) {
                from += step;
            }
        }
        if (++ky == c->p->kernel_h) {
            return;
        }
        corner += row;
    }
}

void fl_column_mve(const fl_columns_mve_t *c, int32_t oy, int32_t ox, int8_t *to) {
    const fl_conv_params_t *p = c->p;
    const fl_map_dims_t *d = c->d;
    const int32_t y0 = oy * p->stride_h - p->pad_top;
    const int32_t x0 = ox * p->stride_w - p->pad_left;
    if (y0 >= 0 && x0 >= 0 && y0 + c->span_h <= d->in_h && x0 + c->span_w <= d->in_w) {
        const int8_t *corner = c->x + (y0 * d->in_w + x0) * d->in_c;
        if (c->gathered) {
            gather(c, corner, to);
            return;
        }
        if (c->n % BLOCK == 0) {
            copy_blocks(c, corner, to);
            return;
        }
    }
    int32_t at = c->pad;
    for (int32_t ky = 0; ky < p->kernel_h; ky++, at += p->kernel_w * d->in_c) {
        const int32_t y = y0 + ky * p->dilation_h;
        if (y < 0 || y >= d->in_h) {
            put_zero(to, at, p->kernel_w * d->in_c, c->x_zero);
        } else {
            put_row(c, y, x0, to, at);
        }
    }
}

#else
typedef int fl_no_columns_mve_t;  // a translation unit may not be empty
#endif
