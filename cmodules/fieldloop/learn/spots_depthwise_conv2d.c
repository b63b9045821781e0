// Depthwise convolution, spot by spot: output channel c reads input channel c / depth_multiplier only; weights are
// [kernel_h, kernel_w, out_c]. Nothing lies side by side here, so what counts is to have little to do for a tap: windows of
// 3x3 that lie on the map as a whole, nearly all there are, have code of their own.
#include "learn/window.h"

// What is the same for every spot of a layer.
typedef struct {
    int32_t stride_h, stride_w, pad_top, pad_left;
    int32_t last_y, last_x;  // a window of 3x3 that starts at 0..last lies on the map as a whole; -1: not 3x3
    int32_t in_w, right, down;
} layer_t;

static layer_t layer_of(const fl_conv_params_t *p, const fl_map_dims_t *d) {
    const int three = p->kernel_h == 3 && p->kernel_w == 3;
    return (layer_t){.stride_h = p->stride_h,
                     .stride_w = p->stride_w,
                     .pad_top = p->pad_top,
                     .pad_left = p->pad_left,
                     .last_y = three ? d->in_h - 1 - 2 * p->dilation_h : -1,
                     .last_x = three ? d->in_w - 1 - 2 * p->dilation_w : -1,
                     .in_w = d->in_w * d->in_c,
                     .right = p->dilation_w * d->in_c,
                     .down = p->dilation_h * d->in_w * d->in_c};
}

// Where the window of a spot starts, as (y, x) by its pixels, if it is whole; else -1.
static inline int32_t whole_at(const layer_t *l, const fl_map_dims_t *d, const fl_spot_t *spot) {
    int32_t y = spot->y * l->stride_h - l->pad_top;
    int32_t x = spot->x * l->stride_w - l->pad_left;
    return y < 0 || y > l->last_y || x < 0 || x > l->last_x ? -1 : y * l->in_w + x * d->in_c;
}

static __attribute__((noinline)) void add_to_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const layer_t *l,
                                                   const fl_spot_t *spot, const int8_t *w, float s, float *plane) {
    const fl_part_t part = fl_part(p, d, spot);
    float *to = plane + (part.y * d->in_w + part.x) * d->in_c;
    const int8_t *from = w + (part.first_y * p->kernel_w + part.first_x) * d->out_c;
    const int32_t row = p->kernel_w * d->out_c - part.columns * d->out_c;
    const int32_t down = l->down - part.columns * l->right;
    for (int32_t y = part.rows; y > 0; y--, to += down, from += row) {
        for (int32_t k = part.columns; k > 0; k--, to += l->right, from += d->out_c) {
            *to = *to + s * (float)*from;
        }
    }
}

void fl_spots_depthwise_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                     uint32_t count, uint32_t c, const int8_t *w, float scale, float *delta_in) {
    const layer_t l = layer_of(p, d);
    float taps[9] = {0};
    delta_in += (int32_t)c / p->depth_multiplier;
    w += c;
    for (int32_t k = 0; l.last_y >= 0 && k < 9; k++) {
        taps[k] = (float)w[k * d->out_c];
    }
    for (const fl_spot_t *spot = spots; spot != spots + count; spot++) {
        const float s = spot->delta.f * scale;
        const int32_t at = whole_at(&l, d, spot);
        if (at < 0) {
            add_to_input(p, d, &l, spot, w, s, delta_in);
            continue;
        }
        float *a = delta_in + at;
        float *b = a + l.down;
        float *e = b + l.down;
        const int32_t once = l.right;
        const int32_t twice = 2 * l.right;
        a[0] = a[0] + s * taps[0];
        a[once] = a[once] + s * taps[1];
        a[twice] = a[twice] + s * taps[2];
        b[0] = b[0] + s * taps[3];
        b[once] = b[once] + s * taps[4];
        b[twice] = b[twice] + s * taps[5];
        e[0] = e[0] + s * taps[6];
        e[once] = e[once] + s * taps[7];
        e[twice] = e[twice] + s * taps[8];
    }
}

static __attribute__((noinline)) void add_to_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const layer_t *l,
                                                 const fl_spot_t *spot, const int8_t *plane, int32_t zero, float *row) {
    const fl_part_t part = fl_part(p, d, spot);
    const float s = spot->delta.f;
    const int8_t *from = plane + (part.y * d->in_w + part.x) * d->in_c;
    float *to = row + part.first_y * p->kernel_w + part.first_x;
    const int32_t next = p->kernel_w - part.columns;
    const int32_t down = l->down - part.columns * l->right;
    for (int32_t y = part.rows; y > 0; y--, from += down, to += next) {
        for (int32_t k = part.columns; k > 0; k--, from += l->right, to++) {
            *to = *to + s * (float)(*from - zero);
        }
    }
}

void fl_spots_depthwise_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots,
                                   uint32_t count, uint32_t c, const int8_t *x, int32_t x_zero, float *row) {
    const layer_t l = layer_of(p, d);
    x += (int32_t)c / p->depth_multiplier;
    for (const fl_spot_t *spot = spots; spot != spots + count; spot++) {
        const int32_t at = whole_at(&l, d, spot);
        if (at < 0) {
            add_to_row(p, d, &l, spot, x, x_zero, row);
            continue;
        }
        const float s = spot->delta.f;
        const int8_t *a = x + at;
        const int8_t *b = a + l.down;
        const int8_t *e = b + l.down;
        const int32_t once = l.right;
        const int32_t twice = 2 * l.right;
        row[0] = row[0] + s * (float)(a[0] - x_zero);
        row[1] = row[1] + s * (float)(a[once] - x_zero);
        row[2] = row[2] + s * (float)(a[twice] - x_zero);
        row[3] = row[3] + s * (float)(b[0] - x_zero);
        row[4] = row[4] + s * (float)(b[once] - x_zero);
        row[5] = row[5] + s * (float)(b[twice] - x_zero);
        row[6] = row[6] + s * (float)(e[0] - x_zero);
        row[7] = row[7] + s * (float)(e[once] - x_zero);
        row[8] = row[8] + s * (float)(e[twice] - x_zero);
    }
}
