// Average pooling: 8 channels at a time summed in 16 bits, which hold 256 taps.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "mve.h"
#include "requant.h"
#include "taps.h"

enum { TAPS_MAX = 256, CHANNELS = 8 };

static void means(const int16_t *sums, int32_t n, int32_t count, int32_t act_min, int32_t act_max, int8_t *out) {
    const int32_t half = count / 2;
    for (int32_t i = 0; i < n; i++) {
        const int32_t sum = sums[i];
        out[i] = fl_clamp((sum > 0 ? sum + half : sum - half) / count, act_min, act_max);
    }
}

void fl_avg_pool_mve(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,
                     const int8_t *x, int8_t *out) {
    if ((int32_t)p->kernel_h * p->kernel_w > TAPS_MAX) {
        fl_avg_pool_plain(p, act_min, act_max, d, x, out);
        return;
    }
    const int32_t x_row = d->in_w * d->in_c;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, 1, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, 1, p->kernel_w, d->in_w);
            const int32_t count = (ty.end - ty.first) * (tx.end - tx.first);
            const int8_t *corner = x + (ty.start + ty.first) * x_row + (tx.start + tx.first) * d->in_c;
            for (int32_t c = 0; c < d->in_c; c += CHANNELS) {
                const int32_t n = d->in_c - c < CHANNELS ? d->in_c - c : CHANNELS;
                const mve_pred16_t some = vctp16q((uint32_t)n);
                int16x8_t sum = vdupq_n_s16(0);
                const int8_t *row = corner + c;
                for (int32_t ky = ty.first; ky < ty.end; ky++, row += x_row) {
                    const int8_t *v = row;
                    for (int32_t kx = tx.first; kx < tx.end; kx++, v += d->in_c) {
                        sum = vaddq_s16(sum, vldrbq_z_s16(v, some));
                    }
                }
                int16_t sums[CHANNELS];
                vstrhq_s16(sums, sum);
                means(sums, n, count, act_min, act_max, out + c);
            }
            out += d->in_c;
        }
    }
}

#else
typedef int fl_no_avg_pool_mve_t;  // a translation unit may not be empty
#endif
