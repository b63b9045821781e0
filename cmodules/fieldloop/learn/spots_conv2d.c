// Convolution, spot by spot: an output of channel c saw a window of the input, and each row of the window is one run of
// the input, of the weights and of their gradient, unless it is dilated sideways.
#include "fieldloop/fl_backward.h"
#include "kernels/taps.h"

// Where a spot's window lies: `rows` runs of `length` elements; from one to the next, the map and the weights move on.
typedef struct {
    int32_t map, weight;  // of the first run
    int32_t rows, length;
    int32_t map_step, weight_step;
} window_t;

// Windows that are not dilated sideways have one run a row; others, one run a tap, and `tap` counts them.
static window_t window_at(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spot) {
    fl_taps_t ty = fl_taps(spot->y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
    fl_taps_t tx = fl_taps(spot->x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
    int32_t iy = ty.start + ty.first * p->dilation_h;
    int32_t ix = tx.start + tx.first * p->dilation_w;
    window_t at = {
        .map = (iy * d->in_w + ix) * d->in_c,
        .weight = (ty.first * p->kernel_w + tx.first) * d->in_c,
        .rows = ty.end - ty.first,
        .length = (tx.end - tx.first) * d->in_c,
        .map_step = p->dilation_h * d->in_w * d->in_c,
        .weight_step = p->kernel_w * d->in_c,
    };
    return at;
}

void fl_spots_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                           const int8_t *w_row, float scale, float *delta_in) {
    int32_t run = p->dilation_w == 1 ? INT32_MAX : d->in_c;
    int32_t apart = (p->dilation_w - 1) * d->in_c;
    for (uint32_t i = 0; i < count; i++) {
        float scaled = spots[i].delta.f * scale;
        window_t at = window_at(p, d, spots + i);
        for (int32_t y = 0; y < at.rows; y++) {
            const int8_t *w = w_row + at.weight + y * at.weight_step;
            float *in = delta_in + at.map + y * at.map_step;
            for (int32_t left = at.length; left > 0; left -= run, w += run, in += run + apart) {
                int32_t n = left < run ? left : run;
                for (int32_t j = 0; j < n; j++) {
                    in[j] = in[j] + scaled * (float)w[j];
                }
                if (n == left) {
                    break;
                }
            }
        }
    }
}

void fl_spots_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                         const int8_t *x, int32_t x_zero, float *row) {
    int32_t run = p->dilation_w == 1 ? INT32_MAX : d->in_c;
    int32_t apart = (p->dilation_w - 1) * d->in_c;
    for (uint32_t i = 0; i < count; i++) {
        float delta = spots[i].delta.f;
        window_t at = window_at(p, d, spots + i);
        for (int32_t y = 0; y < at.rows; y++) {
            const int8_t *in = x + at.map + y * at.map_step;
            float *out = row + at.weight + y * at.weight_step;
            for (int32_t left = at.length; left > 0; left -= run, out += run, in += run + apart) {
                int32_t n = left < run ? left : run;
                for (int32_t j = 0; j < n; j++) {
                    out[j] = out[j] + delta * (float)(in[j] - x_zero);
                }
                if (n == left) {
                    break;
                }
            }
        }
    }
}
