// Depthwise convolution, spot by spot: output channel c reads input channel c / depth_multiplier only; weights are
// [kernel_h, kernel_w, out_c]. Windows of 3x3, undilated, that lie on the map as a whole are what such layers consist of.
#include "fieldloop/fl_backward.h"
#include "kernels/taps.h"

// A spot's window is the map's, as a whole: where it starts, in pixels; else -1.
static inline int32_t whole_at(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spot) {
    int32_t y = spot->y * p->stride_h - p->pad_top;
    int32_t x = spot->x * p->stride_w - p->pad_left;
    return y < 0 || y + 3 > d->in_h || x < 0 || x + 3 > d->in_w ? -1 : y * d->in_w + x;
}

static inline int is_3x3(const fl_conv_params_t *p) {
    return p->kernel_h == 3 && p->kernel_w == 3 && p->dilation_h == 1 && p->dilation_w == 1;
}

static void add_to_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spot, const int8_t *w,
                         float scaled, float *plane) {
    fl_taps_t ty = fl_taps(spot->y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
    fl_taps_t tx = fl_taps(spot->x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
    for (int32_t ky = ty.first; ky < ty.end; ky++) {
        int32_t iy = ty.start + ky * p->dilation_h;
        for (int32_t kx = tx.first; kx < tx.end; kx++) {
            int32_t ix = tx.start + kx * p->dilation_w;
            float *place = plane + (iy * d->in_w + ix) * d->in_c;
            *place = *place + scaled * (float)w[(ky * p->kernel_w + kx) * d->out_c];
        }
    }
}

void fl_spots_depthwise_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                     uint32_t count, uint32_t c, const int8_t *w, float scale, float *delta_in) {
    float *plane = delta_in + (int32_t)c / p->depth_multiplier;
    const int three = is_3x3(p) && count > 1;
    float taps[9] = {0};
    w += c;
    for (int32_t k = 0; three && k < 9; k++) {
        taps[k] = (float)w[k * d->out_c];
    }
    for (uint32_t i = 0; i < count; i++) {
        float scaled = spots[i].delta.f * scale;
        int32_t at = three ? whole_at(p, d, spots + i) : -1;
        if (at < 0) {
            add_to_input(p, d, spots + i, w, scaled, plane);
            continue;
        }
        float *place = plane + at * d->in_c;
        const int32_t right = d->in_c;
        const int32_t down = d->in_w * d->in_c;
        for (const float *tap = taps; tap != taps + 9; tap += 3, place += down) {
            place[0] = place[0] + scaled * tap[0];
            place[right] = place[right] + scaled * tap[1];
            place[2 * right] = place[2 * right] + scaled * tap[2];
        }
    }
}

static void add_to_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spot, const int8_t *plane,
                       int32_t x_zero, float *row) {
    fl_taps_t ty = fl_taps(spot->y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
    fl_taps_t tx = fl_taps(spot->x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
    for (int32_t ky = ty.first; ky < ty.end; ky++) {
        int32_t iy = ty.start + ky * p->dilation_h;
        for (int32_t kx = tx.first; kx < tx.end; kx++) {
            int32_t ix = tx.start + kx * p->dilation_w;
            float *place = row + ky * p->kernel_w + kx;
            *place = *place + spot->delta.f * (float)(plane[(iy * d->in_w + ix) * d->in_c] - x_zero);
        }
    }
}

void fl_spots_depthwise_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                   uint32_t count, uint32_t c, const int8_t *x, int32_t x_zero, float *row) {
    const int8_t *plane = x + (int32_t)c / p->depth_multiplier;
    const int three = is_3x3(p);
    for (uint32_t i = 0; i < count; i++) {
        int32_t at = three ? whole_at(p, d, spots + i) : -1;
        if (at < 0) {
            add_to_row(p, d, spots + i, plane, x_zero, row);
            continue;
        }
        const float delta = spots[i].delta.f;
        const int8_t *place = plane + at * d->in_c;
        const int32_t right = d->in_c;
        const int32_t down = d->in_w * d->in_c;
        for (float *to = row; to != row + 9; to += 3, place += down) {
            to[0] = to[0] + delta * (float)(place[0] - x_zero);
            to[1] = to[1] + delta * (float)(place[right] - x_zero);
            to[2] = to[2] + delta * (float)(place[2 * right] - x_zero);
        }
    }
}
