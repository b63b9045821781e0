// Partial sums with Helium.
#include "kernels/variants.h"
#include "sum.h"

#if FL_KERNELS == 2

#include "mve.h"
#include "sum_lines.h"
#include "sum_pass_mve.h"

// Elements of x in a register, as int8 and as int16.
enum { BYTES = 16, HALVES = 8 };
enum { FEW = 3 };  // pixels, for which weights are not worth keeping

// The sum of n weights.
static int32_t sum_of(const int8_t *w, int32_t n) {
    int32_t sum = 0;
    for (; n > 0; n -= BYTES, w += BYTES) {
        sum = vaddvaq_s8(sum, vldrbq_z_s8(w, vctp8q((uint32_t)n)));
    }
    return sum;
}

// What a row's accumulators get for the zero point of x.
static int32_t minus_zeros(const fl_sum_line_t *v, const int8_t *w) {
    return v->x_zero ? (int32_t)(0u - (uint32_t)v->x_zero * (uint32_t)sum_of(w, v->n)) : 0;
}

// Four channels of all pixels.
static void four_channels(const fl_sum_line_t *v, const int8_t *w, int32_t *acc) {
    fl_sum_pass_t t = {
        .x = v->x,
        .x_step = v->x_step,
        .acc = acc,
        .acc_step = 4 * v->out_c,
        .pixels = v->pixels,
        .n = v->n,
        .w = w,
        .row = v->row,
        .minus = -v->x_zero,
    };
    if (v->n <= HALVES) {
        fl_sum_pass_centred_mve(&t);
        return;
    }
    int32_t all = 0;
    for (int32_t i = 0; i < 4; i++) {
        t.more[i] = minus_zeros(v, w + i * v->row);
        all |= t.more[i];
    }
    for (int32_t left = v->n; left > 0; left -= BYTES) {
        t.n = left < BYTES ? left : BYTES;
        (all ? fl_sum_pass_more_mve : fl_sum_pass_mve)(&t);
        all = 0;
        if (left > BYTES) {
            t.x += BYTES;
            t.w += BYTES;
        }
    }
}

// One channel of one pixel.
static int32_t dot(const int8_t *x, const int8_t *w, int32_t n, int32_t sum) {
    for (; n > 0; n -= BYTES, x += BYTES, w += BYTES) {
        const mve_pred16_t some = vctp8q((uint32_t)n);
        sum = vmladavaq_s8(sum, vldrbq_z_s8(x, some), vldrbq_z_s8(w, some));
    }
    return sum;
}

// Four channels of one pixel: sums of x * w and of w.
static void dot4(const int8_t *x, const int8_t *w, int32_t row, int32_t n, int32_t minus, int32_t *acc) {
    const int8_t *w1 = w + row, *w2 = w1 + row, *w3 = w2 + row;
    int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int32_t i = 0;
    for (; i + BYTES <= n; i += BYTES) {
        const int8x16_t v = vldrbq_s8(x + i);
        const int8x16_t r0 = vldrbq_s8(w + i), r1 = vldrbq_s8(w1 + i), r2 = vldrbq_s8(w2 + i), r3 = vldrbq_s8(w3 + i);
        a0 = vmladavaq_s8(a0, v, r0);
        s0 = vaddvaq_s8(s0, r0);
        a1 = vmladavaq_s8(a1, v, r1);
        s1 = vaddvaq_s8(s1, r1);
        a2 = vmladavaq_s8(a2, v, r2);
        s2 = vaddvaq_s8(s2, r2);
        a3 = vmladavaq_s8(a3, v, r3);
        s3 = vaddvaq_s8(s3, r3);
    }
    if (i < n) {
        const mve_pred16_t some = vctp8q((uint32_t)(n - i));
        const int8x16_t v = vldrbq_z_s8(x + i, some);
        const int8x16_t r0 = vldrbq_z_s8(w + i, some), r1 = vldrbq_z_s8(w1 + i, some);
        const int8x16_t r2 = vldrbq_z_s8(w2 + i, some), r3 = vldrbq_z_s8(w3 + i, some);
        a0 = vmladavaq_s8(a0, v, r0);
        s0 = vaddvaq_s8(s0, r0);
        a1 = vmladavaq_s8(a1, v, r1);
        s1 = vaddvaq_s8(s1, r1);
        a2 = vmladavaq_s8(a2, v, r2);
        s2 = vaddvaq_s8(s2, r2);
        a3 = vmladavaq_s8(a3, v, r3);
        s3 = vaddvaq_s8(s3, r3);
    }
    acc[0] = (int32_t)((uint32_t)a0 + (uint32_t)minus * (uint32_t)s0);
    acc[1] = (int32_t)((uint32_t)a1 + (uint32_t)minus * (uint32_t)s1);
    acc[2] = (int32_t)((uint32_t)a2 + (uint32_t)minus * (uint32_t)s2);
    acc[3] = (int32_t)((uint32_t)a3 + (uint32_t)minus * (uint32_t)s3);
}

static void line(const fl_sum_line_t *v) {
    const int32_t fours = v->out_c & ~3;
    for (int32_t c = 0; c < fours; c += 4) {
        const int8_t *w = v->w + c * v->row;
        if (v->pixels < FEW) {
            for (int32_t i = 0; i < v->pixels; i++) {
                const int8_t *x = i ? v->x + i * v->x_step : v->x;
                dot4(x, w, v->row, v->n, -v->x_zero, v->acc + i * v->out_c + c);
            }
        } else {
            four_channels(v, w, v->acc + c);
        }
    }
    for (int32_t c = fours; c < v->out_c; c++) {
        const int8_t *w = v->w + c * v->row;
        const uint32_t more = (uint32_t)minus_zeros(v, w);
        for (int32_t i = 0; i < v->pixels; i++) {
            int32_t *acc = v->acc + i * v->out_c + c;
            const int8_t *x = i ? v->x + i * v->x_step : v->x;
            *acc = dot(x, w, v->n, (int32_t)((uint32_t)*acc + more));
        }
    }
}

void fl_conv2d_sum_mve(const fl_conv_params_t *p, int32_t x_zero, int32_t w_zero, const fl_map_dims_t *d,
                       const fl_part_t *part, const int8_t *x, const int8_t *w, int32_t *acc) {
    if (w_zero) {
        fl_conv2d_sum_plain(p, x_zero, w_zero, d, part, x, w, acc);
        return;
    }
    fl_sum_lines(p, x_zero, d, part, x, w, acc, line);
}

void fl_pool_sum_mve(int32_t pixels, int32_t channels, const int8_t *x, int32_t x_step, int32_t *acc) {
    const int32_t fours = channels & ~3;
    for (int32_t c = 0; c < fours; c += 4) {
        const int8_t *v = x + c;
        int32x4_t sum = vldrwq_s32(acc + c);
        for (int32_t i = 0; i < pixels; i++, v += x_step) {
            sum = vaddq_s32(sum, vldrbq_s32(v));
        }
        vstrwq_s32(acc + c, sum);
    }
    if (fours < channels) {
        fl_pool_sum_plain(pixels, channels - fours, x + fours, x_step, acc + fours);
    }
}

#else
typedef int fl_no_sum_mve_t;  // a translation unit may not be empty
#endif
