// Average pooling: 8 channels at a time summed in 16 bits, which hold 256 taps.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "mve.h"
#include "steps.h"
#include "taps.h"

enum { TAPS_MAX = 256, CHANNELS = 8 };

static void means(const int16_t *sums, int32_t n, int32_t count, int32_t act_min, int32_t act_max, int8_t *out) {
    // |sum| + count / 2 < 2^16: the product with 2^24 / count, rounded up, has the quotient exactly
    const int32x4_t factor = vdupq_n_s32(((1 << 24) + count - 1) / count);
    const int32x4_t low = vdupq_n_s32(act_min), high = vdupq_n_s32(act_max);
    for (; n > 0; n -= 4, sums += 4, out += 4) {
        const int32x4_t sum = vldrhq_s32(sums);
        const int32x4_t sign = vshrq_n_s32(sum, 31);
        const int32x4_t size = vshlq_n_s32(vaddq_n_s32(vabsq_s32(sum), count / 2), 8);
        const int32x4_t mean = vsubq_s32(veorq_s32(vmulhq_s32(size, factor), sign), sign);
        vstrbq_p_s32(out, vminq_s32(vmaxq_s32(mean, low), high), vctp32q((uint32_t)n));
    }
}

void fl_avg_pool_mve(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,
                     const int8_t *x, int8_t *out) {
    if ((uint32_t)p->kernel_h * p->kernel_w > TAPS_MAX) {
        fl_avg_pool_plain(p, act_min, act_max, d, x, out);
        return;
    }
    const int32_t x_step = fl_x_step(d), y_step = fl_y_step(d), x_row = d->in_w * x_step;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, 1, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, 1, p->kernel_w, d->in_w);
            const int32_t count = (ty.end - ty.first) * (tx.end - tx.first);
            const int8_t *corner = x + (ty.start + ty.first) * x_row + (tx.start + tx.first) * x_step;
            for (int32_t c = 0; c < d->in_c; c += CHANNELS) {
                const int32_t n = d->in_c - c < CHANNELS ? d->in_c - c : CHANNELS;
                const mve_pred16_t some = vctp16q((uint32_t)n);
                int16x8_t sum = vdupq_n_s16(0);
                const int8_t *row = corner + c;
                for (int32_t ky = ty.first; ky < ty.end; ky++, row += x_row) {
                    const int8_t *v = row;
                    for (int32_t kx = tx.first; kx < tx.end; kx++, v += x_step) {
                        sum = vaddq_s16(sum, vldrbq_z_s16(v, some));
                    }
                }
                int16_t sums[CHANNELS];
                vstrhq_s16(sums, sum);
                means(sums, n, count, act_min, act_max, out + c);
            }
            out += y_step;
        }
    }
}

#else
typedef int fl_no_avg_pool_mve_t;  // a translation unit may not be empty
#endif
