// Convolution: four pixels at a time become columns, which every pair of output channels is multiplied with.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "clamp_mve.h"
#include "columns_mve.h"
#include "finish_mve.h"
#include "mve.h"
#include "steps.h"
#include "tile_mve.h"

enum { PIXELS = 4, SUMS_MAX = 64 };

// Which of the places around the four pixels the tile writes to; pixels there are not repeat the last one.
static void set_places(fl_tile_mve_t *t, int32_t pixels, int32_t step) {
    for (int32_t i = 0; i < PIXELS; i++) {
        const int32_t pixel = i < pixels ? i : pixels - 1;
        t->place[2 * i] = (uint16_t)(pixel * step);
        t->place[2 * i + 1] = (uint16_t)(pixel * step + 1);
    }
}

typedef struct {
    const fl_quant_t *q;
    const int8_t *w;
    const int32_t *folded;
    int32_t first, channels;  // of the output
    int32_t right_only;
    fl_requant_t same[2];     // where one factor serves all
} work_t;

// For channels c.. of the work, an even number: all but where the outputs go.
static fl_tile_mve_t tile_of(const fl_columns_mve_t *c, const work_t *v, const int8_t *columns, int32_t channel,
                             int32_t channels) {
    fl_tile_mve_t t;
    t.columns = columns;
    t.pad = c->pad;
    t.k = c->k;
    t.blocks = (c->k + c->pad) / 16 - 1;
    t.w = v->w + channel * c->k;
    t.w_end = t.w + channels * c->k;
    t.pairs = channels / 2;
    t.requant = v->q->requant_stride ? v->q->requant + v->first + channel : v->same;
    t.requant_step = v->q->requant_stride ? 2 * sizeof(fl_requant_t) : 0;
    t.zero = (uint32_t)v->q->out_zero;
    return t;
}

static void run(const work_t *v, fl_tile_mve_t *t, const int32_t *folded, int8_t *out) {
    t->folded = folded;
    t->out = out;
    if (v->right_only) {
        fl_tile_right_mve(t);
    } else {
        fl_tile_any_mve(t);
    }
}

static void all_pixels(const fl_columns_mve_t *c, const work_t *v, const fl_map_dims_t *d, int8_t *columns,
                       int8_t *out) {
    const int32_t pixels = d->out_h * d->out_w, step = fl_y_step(d);
    const int32_t last = v->channels - 2;
    fl_tile_mve_t pairs = tile_of(c, v, columns, 0, v->channels & ~1);
    fl_tile_mve_t last_pair = tile_of(c, v, columns, last, 2);
    set_places(&pairs, pixels, step);
    set_places(&last_pair, pixels, step);
    for (int32_t first = 0;;) {
        fl_columns_mve(c, first, pixels, columns);
        int8_t *to = out + first * step + v->first;
        run(v, &pairs, v->folded, to);
        if (v->channels & 1) {
            run(v, &last_pair, v->folded + last, to + last);  // the last but one again: the same bytes
        }
        if (first + PIXELS >= pixels) {
            return;
        }
        // the last four may begin within those before
        first = first + 2 * PIXELS <= pixels ? first + PIXELS : pixels - PIXELS;
    }
}

void fl_conv2d_mve(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                   const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    if (fl_conv2d_scratch(FL_KERNELS_MVE, p, d) == 0 || q->w_zero != 0 || q->flags & FL_OP_SINGLE_ROUNDING) {
        fl_conv2d_plain(p, q, d, x, w, b, scratch, out);
        return;
    }
    fl_columns_mve_t c;
    int8_t *padded = (int8_t *)scratch + PIXELS * ((p->kernel_h * p->kernel_w * d->in_c + 15) & ~15);
    fl_columns_start_mve(&c, p, d, x, q->x_zero, padded);
    work_t v = {q, w, q->folded, 0, d->out_c, fl_all_right_mve(q, d->out_c), {q->requant[0], q->requant[0]}};
    if (q->folded) {
        all_pixels(&c, &v, d, scratch, out);
    } else {
        int32_t sums[SUMS_MAX];
        while (v.first < d->out_c) {
            // never one alone: a pair at least
            const int32_t left = d->out_c - v.first;
            v.channels = left <= SUMS_MAX ? left : left == SUMS_MAX + 1 ? SUMS_MAX - 2 : SUMS_MAX;
            v.w = w + v.first * c.k;
            v.folded = sums;
            fl_fold_mve(q, v.w, b ? b + v.first : 0, v.channels, c.k, sums);
            all_pixels(&c, &v, d, scratch, out);
            v.first += v.channels;
        }
    }
    fl_clamp_pixels_mve(q, d, out);
}

#else
typedef int fl_no_conv2d_mve_t;  // a translation unit may not be empty
#endif
