// Convolution with the DSP extension: two pixels by two output channels at a time, a multiply-accumulate an instruction.
#include "columns_dsp.h"
#include "finish_dsp.h"
#include "kernels/variants.h"
#include "steps.h"
#include "tile_dsp.h"

#if FL_KERNELS == 1

// One group of channels.
typedef struct {
    const fl_quant_t *q;
    const int32_t *b;  // of the tensor, or NULL
    int32_t first;     // channel of the tensor
    int32_t channels;
    int32_t paired;    // of them, those that go to the tile
    fl_tile_t tile;
} group_t;

// One channel of both pixels: for an odd last channel, and where the tile's conditions do not hold.
static void channel(const group_t *g, int32_t c, int8_t *out0, int8_t *out1) {
    const int8_t *w = g->tile.w + c * g->tile.k;
    const uint32_t *x = g->tile.x;
    uint32_t p0 = 0, p1 = 0;
    for (; x != g->tile.x_4; x += 4) {
        const uint32_t word = fl_word(w);
        const uint32_t even = fl_sxtb16(word), odd = fl_sxtb16_odd(word);
        p0 = fl_smlad(odd, x[1], fl_smlad(even, x[0], p0));
        p1 = fl_smlad(odd, x[3], fl_smlad(even, x[2], p1));
        w += 4;
    }
    for (; x != g->tile.x_end; x++) {
        const uint32_t both = fl_word((const int8_t *)x), v = (uint32_t)*w++;
        p0 = fl_smlabb(both, v, p0);
        p1 = fl_smlatb(both, v, p1);
    }
    out0[c] = fl_finish(g->q, g->b, g->first + c, p0);
    out1[c] = fl_finish(g->q, g->b, g->first + c, p1);
}

static void two_pixels(group_t *g, int8_t *out0, int8_t *out1) {
    if (g->paired) {
        g->tile.out0 = out0;
        g->tile.out1 = out1;
        g->tile.out_end = out0 + g->paired;
        fl_tile_dsp(&g->tile);
    }
    for (int32_t c = g->paired; c < g->channels; c++) {
        channel(g, c, out0, out1);
    }
}

// One pixel alone, from its bytes in the order of the weights.
static void one_pixel(const group_t *g, const int8_t *x, int8_t *out) {
    fl_quant_t q = *g->q;
    q.requant += (uint32_t)g->first * q.requant_stride;
    fl_fully_connected_dsp(&q, 1, g->channels, g->tile.k, x, g->tile.w, g->b ? g->b + g->first : NULL, NULL, out);
}

// Pixels that a 1x1 kernel sees, one after the other; places count modulo 2^32, what lies behind the last is never read.
typedef struct {
    const int8_t *x;
    uint32_t at;            // the next one
    uint32_t step, to_row;  // to the one after it, and from a row's end to the next row
    int32_t width, left;    // pixels of a row, of this row
} walk_t;

// Whether the kernel is 1x1 and never leaves the map.
static int has_walk(const fl_conv_params_t *p, const fl_map_dims_t *d) {
    return p->kernel_h == 1 && p->kernel_w == 1 && p->pad_top == 0 && p->pad_left == 0 &&
           (int64_t)(d->out_h - 1) * p->stride_h < d->in_h && (int64_t)(d->out_w - 1) * p->stride_w < d->in_w;
}

static walk_t walk_from(const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x) {
    const uint32_t pixel = (uint32_t)fl_x_step(d);
    walk_t v = {.x = x, .step = (uint32_t)p->stride_w * pixel, .width = d->out_w, .left = d->out_w};
    v.to_row = (uint32_t)p->stride_h * (uint32_t)d->in_w * pixel - (uint32_t)d->out_w * v.step;
    return v;
}

static inline const int8_t *next(walk_t *v) {
    const int8_t *x = v->x + v->at;
    v->at += v->step;
    if (--v->left == 0) {
        v->left = v->width;
        v->at += v->to_row;
    }
    return x;
}

static void along(walk_t v, group_t *g, int32_t pixels, uint32_t *scratch, int8_t *out, int32_t step) {
    for (; pixels >= 2; pixels -= 2) {
        const int8_t *x = next(&v);
        fl_two_columns(x, next(&v), g->tile.k, g->q->x_zero, scratch);
        two_pixels(g, out, out + step);
        out += 2 * step;
    }
    if (pixels) {
        one_pixel(g, next(&v), out);
    }
}

static void window_by_window(const fl_columns_t *v, group_t *g, uint32_t *scratch, int8_t *out, int32_t step) {
    const int32_t width = v->d->out_w;
    int32_t pixels = v->d->out_h * width, oy = 0, ox = 0;
    for (; pixels >= 2; pixels -= 2) {
        for (int32_t j = 0; j < 2; j++) {
            fl_column(v, oy, ox, scratch, j);
            if (++ox == width) {
                ox = 0;
                oy++;
            }
        }
        two_pixels(g, out, out + step);
        out += 2 * step;
    }
    if (pixels) {
        fl_column_bytes(v, oy, ox, (int8_t *)scratch);
        one_pixel(g, (const int8_t *)scratch, out);
    }
}

void fl_conv2d_dsp(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                   const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    const int32_t groups = p->groups > 1 ? p->groups : 1;
    const int32_t w_c = d->in_c / groups;
    if (q->w_zero != 0 || !fl_has_columns(p, w_c)) {
        fl_conv2d_plain(p, q, d, x, w, b, scratch, out);
        return;
    }
    const uint32_t *columns = scratch;
    const int32_t channels = d->out_c / groups, k = p->kernel_h * p->kernel_w * w_c;
    const int paired = b && q->requant_stride != 0 && !(q->flags & FL_OP_SINGLE_ROUNDING);
    group_t g;
    g.q = q;
    g.b = b;
    g.channels = channels;
    g.paired = paired ? channels & ~1 : 0;
    g.tile.twice_zero_1 = 2 * q->out_zero + 1;
    g.tile.x = columns;
    g.tile.k = k;
    g.tile.x_16 = columns + (k & ~15);
    g.tile.x_4 = columns + (k & ~3);
    g.tile.x_end = columns + k;
    g.tile.low = (uint8_t)q->act_min * 0x01010101u;
    g.tile.high = (uint8_t)q->act_max * 0x01010101u;
    g.tile.clamped = (uint32_t)fl_is_clamped(q);
    g.tile.q = q;
    const int walks = has_walk(p, d);
    for (int32_t i = 0; i < groups; i++) {
        g.first = i * channels;
        g.tile.r = q->requant + g.first;
        g.tile.b = b ? b + g.first : NULL;
        g.tile.w = w + g.first * k;
        if (walks) {
            along(walk_from(p, d, x), &g, d->out_h * d->out_w, scratch, out + g.first, fl_y_step(d));
        } else {
            const fl_columns_t v = fl_columns(p, d, w_c, q->x_zero, x);
            window_by_window(&v, &g, scratch, out + g.first, fl_y_step(d));
        }
        x += w_c;
    }
}

#else
typedef int fl_no_conv2d_dsp_t;  // a translation unit may not be empty
#endif
