// Depthwise convolution with 16-bit deltas: output channel c reads input channel c / depth_multiplier only, so that
// neighbouring taps lie in_c apart on the map and out_c apart in w.
#include "fieldloop/fl_backward_q.h"
#include "kernels/taps.h"
#include "learn/q_words.h"

// Where a spot's window lies on a plane: lines and taps that are on the map, and the place of the first of them.
typedef struct {
    int32_t first_line, lines, first_tap, taps;
    int32_t place;
} q_window_t;

static inline q_window_t window_of(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *s) {
    const fl_taps_t ty = fl_taps(s->y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
    const fl_taps_t tx = fl_taps(s->x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
    const int32_t iy = ty.start + ty.first * p->dilation_h, ix = tx.start + tx.first * p->dilation_w;
    return (q_window_t){ty.first, ty.end - ty.first, tx.first, tx.end - tx.first, (iy * d->in_w + ix) * d->in_c};
}

void fl_q_spots_depthwise_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                       uint32_t count, uint32_t c, const int8_t *w, int32_t mantissa, uint32_t r,
                                       int32_t *delta_in) {
    const int32_t step = p->dilation_w * d->in_c, line = p->dilation_h * d->in_w * d->in_c;
    const int32_t w_step = d->out_c, w_line = p->kernel_w * d->out_c;
    delta_in += c / p->depth_multiplier;
    w += c;
    for (uint32_t e = 0; e < count; e++) {
        const int32_t t = fl_q_scale_word(spots[e].delta.q, mantissa, r);
        if (t == 0) {
            continue;
        }
        const q_window_t on = window_of(p, d, &spots[e]);
        int32_t from = on.first_line * w_line + on.first_tap * w_step;
        int32_t to = on.place;
        for (int32_t ky = 0; ky < on.lines; ky++, from += w_line, to += line) {
            const int8_t *tap = w + from;
            int32_t *place = delta_in + to;
            if (on.taps == 3) {  // most are 3x3
                place[0] += t * tap[0];
                place[step] += t * tap[w_step];
                place[2 * step] += t * tap[2 * w_step];
                continue;
            }
            for (int32_t kx = on.taps; kx > 0; kx--, tap += w_step, place += step) {
                *place += t * *tap;
            }
        }
    }
}

void fl_q_spots_depthwise_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                     uint32_t count, uint32_t c, const int8_t *x, int32_t x_zero, uint32_t r, int32_t *row) {
    const int32_t step = p->dilation_w * d->in_c, line = p->dilation_h * d->in_w * d->in_c;
    const int32_t kernel_w = p->kernel_w;
    x += c / p->depth_multiplier;
    for (uint32_t e = 0; e < count; e++) {
        const int32_t t = fl_q_shift(spots[e].delta.q, r);
        if (t == 0) {
            continue;
        }
        const q_window_t on = window_of(p, d, &spots[e]);
        int32_t from = on.place;
        int32_t to = on.first_line * kernel_w + on.first_tap;
        for (int32_t ky = 0; ky < on.lines; ky++, from += line, to += kernel_w) {
            const int8_t *place = x + from;
            int32_t *tap = row + to;
            if (on.taps == 3) {
                tap[0] += t * (place[0] - x_zero);
                tap[1] += t * (place[step] - x_zero);
                tap[2] += t * (place[2 * step] - x_zero);
                continue;
            }
            for (int32_t kx = on.taps; kx > 0; kx--, place += step) {
                *tap++ += t * (*place - x_zero);
            }
        }
    }
}
