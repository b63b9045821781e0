// What an output saw of the input: the taps of its window that lie on the map.
#ifndef FIELDLOOP_LEARN_WINDOW_H
#define FIELDLOOP_LEARN_WINDOW_H

#include "fieldloop/fl_backward.h"
#include "kernels/taps.h"

typedef struct {
    int32_t y, x;              // of the first of them on the map
    int32_t first_y, first_x;  // in the window
    int32_t rows, columns;     // below 1: none
} fl_part_t;

static inline void fl_cut(int32_t at, int32_t kernel, int32_t size, int32_t *start, int32_t *first, int32_t *taps) {
    *first = at < 0 ? -at : 0;
    *start = at < 0 ? 0 : at;
    *taps = (at + kernel > size ? size - at : kernel) - *first;
}

static inline fl_part_t fl_part(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spot) {
    fl_part_t part;
    if (p->dilation_h == 1 && p->dilation_w == 1) {  // nothing to divide by
        fl_cut(spot->y * p->stride_h - p->pad_top, p->kernel_h, d->in_h, &part.y, &part.first_y, &part.rows);
        fl_cut(spot->x * p->stride_w - p->pad_left, p->kernel_w, d->in_w, &part.x, &part.first_x, &part.columns);
    } else {
        fl_taps_t ty = fl_taps(spot->y, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        fl_taps_t tx = fl_taps(spot->x, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
        part = (fl_part_t){.y = ty.start + ty.first * p->dilation_h,
                           .x = tx.start + tx.first * p->dilation_w,
                           .first_y = ty.first,
                           .first_x = tx.first,
                           .rows = ty.end - ty.first,
                           .columns = tx.end - tx.first};
    }
    if (part.columns < 1) {
        part.rows = 0;
    }
    if (part.rows < 1) {  // its place may be anywhere
        part.y = part.x = part.first_y = part.first_x = part.columns = 0;
    }
    return part;
}

#endif
