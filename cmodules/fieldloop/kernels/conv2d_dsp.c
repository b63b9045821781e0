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

void fl_conv2d_dsp(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                   const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    const int32_t groups = p->groups > 1 ? p->groups : 1;
    const int32_t w_c = d->in_c / groups;
    if (q->w_zero != 0 || !fl_has_columns(p, w_c)) {
        fl_conv2d_plain(p, q, d, x, w, b, scratch, out);
        return;
    }
    fl_columns_t v = fl_columns(p, d, w_c, q->x_zero, x);
    const uint32_t *columns = scratch;
    const int32_t channels = d->out_c / groups;
    const int paired = b && q->requant_stride != 0 && !(q->flags & FL_OP_SINGLE_ROUNDING);
    group_t g = {
        .q = q,
        .b = b,
        .channels = channels,
        .paired = paired ? channels & ~1 : 0,
        .tile = {
            .twice_zero_1 = 2 * q->out_zero + 1,
            .x = columns,
            .k = v.k,
            .x_16 = columns + (v.k & ~15),
            .x_4 = columns + (v.k & ~3),
            .x_end = columns + v.k,
            .low = (uint8_t)q->act_min * 0x01010101u,
            .high = (uint8_t)q->act_max * 0x01010101u,
            .clamped = fl_is_clamped(q),
            .q = q,
        },
    };
    const int32_t pixels = d->out_h * d->out_w, step = fl_y_step(d);
    for (int32_t i = 0; i < groups; i++) {
        g.first = i * channels;
        g.tile.r = q->requant + g.first;
        g.tile.b = b ? b + g.first : NULL;
        g.tile.w = w + g.first * v.k;
        int8_t *from = out + g.first;
        int32_t oy = 0, ox = 0;
        for (int32_t n = 0; n < pixels; n += 2) {
            int8_t *to[2];
            for (int32_t j = 0; j < 2; j++) {
                to[j] = from;
                fl_column(&v, oy, ox, scratch, j);
                if (n + j + 1 < pixels) {  // an odd last pixel goes as both
                    from += step;
                    if (++ox == d->out_w) {
                        ox = 0;
                        oy++;
                    }
                }
            }
            two_pixels(&g, to[0], to[1]);
        }
        v.x += w_c;
    }
}

#else
typedef int fl_no_conv2d_dsp_t;  // a translation unit may not be empty
#endif
