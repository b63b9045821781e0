// Average pooling over the taps that lie on the map; the padding does not count towards the divisor.
#include "kernels/variants.h"
#include "requant.h"
#include "steps.h"
#include "taps.h"

void fl_avg_pool_plain(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d, const int8_t *x,
                 int8_t *out) {
    const int32_t step = fl_x_step(d), x_row = d->in_w * step, rest = fl_y_step(d) - d->in_c;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, 1, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, 1, p->kernel_w, d->in_w);
            const int32_t count = (ty.end - ty.first) * (tx.end - tx.first);
            const int8_t *corner = x + (ty.start + ty.first) * x_row + (tx.start + tx.first) * step;
            for (int32_t c = 0; c < d->in_c; c++) {
                int32_t sum = 0;
                const int8_t *row = corner + c;
                for (int32_t ky = ty.first; ky < ty.end; ky++) {
                    const int8_t *v = row;
                    for (int32_t kx = tx.first; kx < tx.end; kx++) {
                        sum += *v;
                        v += step;
                    }
                    row += x_row;
                }
                // C division truncates: half the divisor, with the sum's sign, rounds halves away from zero
                int32_t mean = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
                *out++ = fl_clamp(mean, act_min, act_max);
            }
            out += rest;
        }
    }
}
