// Convolution with 16-bit deltas, a scatter over the spots of one channel. Taps that lie side by side on the map are one run.
#include <stddef.h>

#include "fieldloop/fl_backward_q.h"
#include "learn/q_runs.h"
#include "learn/q_words.h"

// Line of a dilated window that starts at column ox of a line of the map.
static void add_taps(const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *w_line, int32_t ox, int32_t t,
                     int32_t *line) {
    for (int32_t kx = 0, ix = ox; kx < p->kernel_w; kx++, ix += p->dilation_w) {
        if (ix >= 0 && ix < d->in_w) {
            fl_q_add_run(line + ix * d->in_c, w_line + kx * d->in_c, t, d->in_c);
        }
    }
}

// A window of one tap: two spots share what is read of w.
static void pointwise_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                            const int8_t *w_row, int32_t mantissa, uint32_t r, int32_t *delta_in) {
    int32_t *waiting = NULL;
    int32_t t_waiting = 0;
    for (uint32_t e = 0; e < count; e++) {
        const int32_t t = fl_q_scale_word(spots[e].delta.q, mantissa, r);
        const int32_t iy = spots[e].y * p->stride_h - p->pad_top;
        const int32_t ix = spots[e].x * p->stride_w - p->pad_left;
        if (t == 0 || iy < 0 || iy >= d->in_h || ix < 0 || ix >= d->in_w) {
            continue;
        }
        int32_t *place = delta_in + (iy * d->in_w + ix) * d->in_c;
        if (!waiting) {
            waiting = place;
            t_waiting = t;
        } else if (waiting == place) {
            t_waiting += t;
        } else {
            fl_q_add_run_twice(waiting, place, w_row, t_waiting, t, d->in_c);
            waiting = NULL;
        }
    }
    if (waiting) {
        fl_q_add_run(waiting, w_row, t_waiting, d->in_c);
    }
}

void fl_q_spots_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                             const int8_t *w_row, int32_t mantissa, uint32_t r, int32_t *delta_in) {
    if (p->kernel_h == 1 && p->kernel_w == 1) {
        pointwise_input(p, d, spots, count, w_row, mantissa, r, delta_in);
        return;
    }
    const int32_t in_c = d->in_c, in_h = d->in_h, x_line = d->in_w * in_c;
    const int32_t kernel_h = p->kernel_h, dilation_h = p->dilation_h, w_line = p->kernel_w * in_c;
    for (uint32_t e = 0; e < count; e++) {
        const int32_t t = fl_q_scale_word(spots[e].delta.q, mantissa, r);
        if (t == 0) {
            continue;
        }
        const int32_t ox = spots[e].x * p->stride_w - p->pad_left;
        const fl_q_line_t on = fl_q_line(ox, p->kernel_w, d->in_w);
        const int32_t from = on.first * in_c, n = on.end * in_c - from, to = ox * in_c + from;
        int32_t iy = spots[e].y * p->stride_h - p->pad_top;
        const int8_t *w = w_row;
        for (int32_t ky = 0; ky < kernel_h; ky++, iy += dilation_h, w += w_line) {
            if (iy < 0 || iy >= in_h) {
                continue;
            }
            int32_t *line = delta_in + iy * x_line;
            if (p->dilation_w != 1) {
                add_taps(p, d, w, ox, t, line);
            } else if (n > 0) {
                fl_q_add_run(line + to, w + from, t, n);
            }
        }
    }
}

// What the line of a window saw that starts at column ox goes to its line of the row.
static void see_line(const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x, int32_t x_zero, int32_t ox,
                     int32_t t, int32_t *sums) {
    const int32_t in_c = d->in_c;
    if (p->dilation_w == 1) {
        const fl_q_line_t on = fl_q_line(ox, p->kernel_w, d->in_w);
        if (on.first < on.end) {
            const int32_t n = (on.end - on.first) * in_c;
            fl_q_add_centred_run(sums + on.first * in_c, x + (ox + on.first) * in_c, x_zero, t, n);
        }
        return;
    }
    for (int32_t kx = 0, ix = ox; kx < p->kernel_w; kx++, ix += p->dilation_w) {
        if (ix >= 0 && ix < d->in_w) {
            fl_q_add_centred_run(sums + kx * in_c, x + ix * in_c, x_zero, t, in_c);
        }
    }
}

void fl_q_spots_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                           const int8_t *x, int32_t x_zero, uint32_t r, int32_t *row) {
    // columns at which a window with its taps side by side lies on the map altogether: 0..inside-1
    const int32_t inside = p->dilation_w == 1 || p->kernel_w == 1 ? d->in_w - p->kernel_w + 1 : 0;
    const int32_t x_line = d->in_w * d->in_c;
    fl_q_runs_t gathered;
    fl_q_start_runs(&gathered, row, p->kernel_w * d->in_c, x_zero);
    for (int32_t ky = 0; ky < p->kernel_h; ky++, gathered.sums += gathered.n) {
        const int32_t oy = ky * p->dilation_h - p->pad_top;
        for (uint32_t e = 0; e < count; e++) {
            const int32_t iy = spots[e].y * p->stride_h + oy;
            if (iy < 0 || iy >= d->in_h) {
                continue;
            }
            const int32_t t = fl_q_shift(spots[e].delta.q, r);
            const int32_t ox = spots[e].x * p->stride_w - p->pad_left;
            if (ox >= 0 && ox < inside) {
                fl_q_gather_run(&gathered, x + iy * x_line + ox * d->in_c, t);
            } else {
                see_line(p, d, x + iy * x_line, x_zero, ox, t, gathered.sums);
            }
        }
        fl_q_finish_runs(&gathered);
    }
}
