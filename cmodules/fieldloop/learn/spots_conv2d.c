// Convolution, spot by spot: an output of channel c saw a window of the input, and each row of the window is one run of
// the input, of the weights and of their gradient, unless it is dilated sideways.
#include "learn/axpy.h"
#include "learn/window.h"

enum {
    LANES = 8,      // channels whose weights are made f32 once for all spots
    MOST_TAPS = 9,  // of a window for that: 288 bytes of stack
};

// A window that starts at 0..last lies on the map as a whole.
typedef struct {
    int32_t last_y, last_x;
} room_t;

static room_t room_of(const fl_conv_params_t *p, const fl_map_dims_t *d) {
    return (room_t){d->in_h - 1 - (p->kernel_h - 1) * p->dilation_h, d->in_w - 1 - (p->kernel_w - 1) * p->dilation_w};
}

// Where the window of a spot starts on the map if all of it lies there, else -1.
static inline int32_t whole_at(const fl_conv_params_t *p, const fl_map_dims_t *d, room_t room, const fl_spot_t *spot) {
    int32_t y = spot->y * p->stride_h - p->pad_top;
    int32_t x = spot->x * p->stride_w - p->pad_left;
    if (y < 0 || y > room.last_y || x < 0 || x > room.last_x) {
        return -1;
    }
    return (y * d->in_w + x) * d->in_c;
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
        fl_axpy_to_four(out, w_row, scaled, (uint32_t)d->in_c);
    }
    return i;
}

// Eight channels at a time, for all spots: windows overlap, so a spot is done before the next one begins.
static void add_lanes(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                      const int8_t *w_row, float scale, float *delta_in) {
    float w[MOST_TAPS * LANES];
    const room_t room = room_of(p, d);
    const int32_t taps = p->kernel_h * p->kernel_w;
    fl_taps_of_8_t block = {.out_step = p->dilation_w * d->in_c,
                            .out_row = p->dilation_h * d->in_w * d->in_c,
                            .w_row = p->kernel_w * LANES};
    for (int32_t channel = 0; channel < d->in_c; channel += LANES) {
        for (int32_t t = 0; t < taps; t++) {
            for (int32_t j = 0; j < LANES; j++) {
                w[t * LANES + j] = (float)w_row[t * d->in_c + channel + j];
            }
        }
        for (uint32_t i = 0; i < count; i++) {
            const float *from = w;
            int32_t at = whole_at(p, d, room, spots + i);
            block.rows = p->kernel_h;
            block.taps = p->kernel_w;
            if (at < 0) {
                const fl_part_t part = fl_part(p, d, spots + i);
                at = (part.y * d->in_w + part.x) * d->in_c;
                from += (part.first_y * p->kernel_w + part.first_x) * LANES;
                block.rows = part.rows;
                block.taps = part.columns;
            }
            fl_axpy_taps_of_8(&block, delta_in + at + channel, from, spots[i].delta.f * scale);
        }
    }
}

// One spot, whatever the window. `out` and `in` are the map's or the weights' as `to_map` says.
static void add_part(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spot, int to_map, float *out,
                     const int8_t *in, int32_t zero, float s) {
    const fl_part_t part = fl_part(p, d, spot);
    const int32_t map = (part.y * d->in_w + part.x) * d->in_c;
    const int32_t weight = (part.first_y * p->kernel_w + part.first_x) * d->in_c;
    const int32_t map_step = p->dilation_h * d->in_w * d->in_c;
    const int32_t weight_step = p->kernel_w * d->in_c;
    const int32_t runs = p->dilation_w == 1 ? 1 : part.columns;
    const fl_block_t block = {.rows = part.rows,
                              .n = p->dilation_w == 1 ? part.columns * d->in_c : d->in_c,
                              .out_step = to_map ? map_step : weight_step,
                              .in_step = to_map ? weight_step : map_step,
                              .zero = zero};
    for (int32_t t = 0; t < runs; t++) {
        int32_t on_map = map + t * p->dilation_w * d->in_c;
        int32_t in_row = weight + t * d->in_c;
        fl_axpy(&block, out + (to_map ? on_map : in_row), in + (to_map ? in_row : on_map), s);
    }
}

// One input channel and 3x3: as one channel of a depthwise convolution, which has no runs either.
static int as_depthwise(const fl_conv_params_t *p, const fl_map_dims_t *d, fl_conv_params_t *own, fl_map_dims_t *plane) {
    if (d->in_c != 1 || p->kernel_h != 3 || p->kernel_w != 3) {
        return 0;
    }
    *own = *p;
    own->depth_multiplier = 1;
    *plane = *d;
    plane->out_c = 1;
    return 1;
}

void fl_spots_conv2d_input(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                           const int8_t *w_row, float scale, float *delta_in) {
    fl_conv_params_t own;
    fl_map_dims_t plane;
    if (as_depthwise(p, d, &own, &plane)) {
        fl_spots_depthwise_conv2d_input(&own, &plane, spots, count, 0, w_row, scale, delta_in);
        return;
    }
    const room_t room = room_of(p, d);
    const fl_block_t whole = {.rows = p->kernel_h,
                              .n = p->kernel_w * d->in_c,
                              .out_step = p->dilation_h * d->in_w * d->in_c,
                              .in_step = p->kernel_w * d->in_c};
    uint32_t i = 0;
    // a map may be padded at its end alone: then outputs lie beyond it
    if (p->kernel_h == 1 && p->kernel_w == 1 && p->pad_top == 0 && p->pad_left == 0 &&
        (d->out_h - 1) * p->stride_h < d->in_h && (d->out_w - 1) * p->stride_w < d->in_w) {
        i = add_pixels(p, d, spots, count, w_row, scale, delta_in);
    } else if (FL_AXPY != 2 && d->in_c % LANES == 0 && p->kernel_h * p->kernel_w <= MOST_TAPS && count > 2) {
        add_lanes(p, d, spots, count, w_row, scale, delta_in);
        i = count;
    }
    for (; i < count; i++) {
        int32_t at = p->dilation_w == 1 ? whole_at(p, d, room, spots + i) : -1;
        if (at >= 0) {
            fl_axpy(&whole, delta_in + at, w_row, spots[i].delta.f * scale);
        } else {
            add_part(p, d, spots + i, 1, delta_in, w_row, 0, spots[i].delta.f * scale);
        }
    }
}

void fl_spots_conv2d_row(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count,
                         const int8_t *x, int32_t x_zero, float *row) {
    fl_conv_params_t own;
    fl_map_dims_t plane;
    if (as_depthwise(p, d, &own, &plane)) {
        fl_spots_depthwise_conv2d_row(&own, &plane, spots, count, 0, x, x_zero, row);
        return;
    }
    const room_t room = room_of(p, d);
    const fl_block_t whole = {.rows = p->kernel_h,
                              .n = p->kernel_w * d->in_c,
                              .out_step = p->kernel_w * d->in_c,
                              .in_step = p->dilation_h * d->in_w * d->in_c,
                              .zero = x_zero};
    // four whole windows that follow each other are added together; the order stays theirs
    const int8_t *in[4];
    float deltas[4];
    uint32_t gathered = 0;
    for (uint32_t i = 0; i < count; i++) {
        int32_t at = p->dilation_w == 1 ? whole_at(p, d, room, spots + i) : -1;
        if (at >= 0) {
            in[gathered] = x + at;
            deltas[gathered] = spots[i].delta.f;
            gathered++;
        }
        if (gathered == 4) {
            fl_axpy_four(&whole, row, in, deltas);
            gathered = 0;
        } else if (at < 0 || i + 1 == count) {
            for (uint32_t k = 0; k < gathered; k++) {
                fl_axpy(&whole, row, in[k], deltas[k]);
            }
            gathered = 0;
        }
        if (at < 0) {
            add_part(p, d, spots + i, 0, row, x, x_zero, spots[i].delta.f);
        }
    }
}
