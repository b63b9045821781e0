// Convolution, spot by spot: an output of channel c saw a window of the input, and each row of the window is one run of
// the input, of the weights and of their gradient, unless it is dilated sideways.
#include "fieldloop/fl_backward.h"
#include "kernels/taps.h"
#include "learn/axpy.h"

// What is the same for every spot of a layer.
typedef struct {
    const fl_conv_params_t *p;
    const fl_map_dims_t *d;
    int32_t last_y, last_x;  // a window that starts at 0..last lies on the map as a whole; below 0: none does
    fl_block_t whole;        // such a window
} walk_t;

// A window's place, or what is left of it at the edge.
typedef struct {
    int32_t map, weight;  // its first element
    int32_t taps_x;
    fl_block_t block;
} part_t;

static walk_t walk_of(const fl_conv_params_t *p, const fl_map_dims_t *d, int32_t zero) {
    return (walk_t){
        .p = p,
        .d = d,
        .last_y = d->in_h - 1 - (p->kernel_h - 1) * p->dilation_h,
        .last_x = p->dilation_w == 1 ? d->in_w - p->kernel_w : -1,
        .whole = {.rows = p->kernel_h, .n = p->kernel_w * d->in_c, .zero = zero},
    };
}

// Out of line: most windows are whole.
static __attribute__((noinline)) part_t part_at(const walk_t *walk, const fl_spot_t *spot) {
    const fl_conv_params_t *p = walk->p;
    const fl_map_dims_t *d = walk->d;
    fl_taps_t ty = fl_taps(spot->y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
    fl_taps_t tx = fl_taps(spot->x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
    part_t part = {.taps_x = tx.end - tx.first, .block = walk->whole};
    if (part.taps_x <= 0 || ty.end <= ty.first) {
        part.taps_x = 0;
        return part;
    }
    int32_t iy = ty.start + ty.first * p->dilation_h;
    int32_t ix = tx.start + tx.first * p->dilation_w;
    part.map = (iy * d->in_w + ix) * d->in_c;
    part.weight = (ty.first * p->kernel_w + tx.first) * d->in_c;
    part.block.rows = ty.end - ty.first;
    part.block.n = p->dilation_w == 1 ? part.taps_x * d->in_c : d->in_c;
    if (p->dilation_w == 1) {
        part.taps_x = 1;
    }
    return part;
}

// Where the window of a spot starts if all of it lies on the map, else -1.
static inline int32_t whole_at(const walk_t *walk, const fl_spot_t *spot) {
    int32_t y = spot->y * walk->p->stride_h - walk->p->pad_top;
    int32_t x = spot->x * walk->p->stride_w - walk->p->pad_left;
    if (y < 0 || y > walk->last_y || x < 0 || x > walk->last_x) {
        return -1;
    }
    return (y * walk->d->in_w + x) * walk->d->in_c;
}

// 1x1: spots are whole pixels, and four of them share the way of a weight to f32.
static uint32_t add_pixels(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                           const int8_t *w_row, float scale, float *delta_in) {
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        float *out[4];
        float scaled[4];
        for (uint32_t k = 0; k < 4; k++) {
            const fl_spot_t *spot = spots + i + k;
            scaled[k] = spot->delta.f * scale;
            out[k] = delta_in + (spot->y * p->stride_h * d->in_w + spot->x * p->stride_w) * d->in_c;
        }
        fl_axpy_four_runs(out, w_row, scaled, (uint32_t)d->in_c);
    }
    return i;
}

void fl_spots_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                           const int8_t *w_row, float scale, float *delta_in) {
    walk_t walk = walk_of(p, d, 0);
    walk.whole.out_step = p->dilation_h * d->in_w * d->in_c;
    walk.whole.in_step = p->kernel_w * d->in_c;
    uint32_t i = 0;
    if (p->kernel_h == 1 && p->kernel_w == 1 && p->pad_top == 0 && p->pad_left == 0) {
        i = add_pixels(p, d, spots, count, w_row, scale, delta_in);
    }
    for (; i < count; i++) {
        float scaled = spots[i].delta.f * scale;
        int32_t at = whole_at(&walk, spots + i);
        if (at >= 0) {
            fl_axpy(&walk.whole, delta_in + at, w_row, scaled);
            continue;
        }
        part_t part = part_at(&walk, spots + i);
        for (int32_t t = 0; t < part.taps_x; t++) {
            fl_axpy(&part.block, delta_in + part.map + t * p->dilation_w * d->in_c, w_row + part.weight + t * d->in_c,
                    scaled);
        }
    }
}

void fl_spots_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                         const int8_t *x, int32_t x_zero, float *row) {
    walk_t walk = walk_of(p, d, x_zero);
    walk.whole.out_step = p->kernel_w * d->in_c;
    walk.whole.in_step = p->dilation_h * d->in_w * d->in_c;
    for (uint32_t i = 0; i < count; i++) {
        float delta = spots[i].delta.f;
        int32_t at = whole_at(&walk, spots + i);
        if (at >= 0) {
            fl_axpy(&walk.whole, row, x + at, delta);
            continue;
        }
        part_t part = part_at(&walk, spots + i);
        for (int32_t t = 0; t < part.taps_x; t++) {
            fl_axpy(&part.block, row + part.weight + t * d->in_c, x + part.map + t * p->dilation_w * d->in_c, delta);
        }
    }
}
