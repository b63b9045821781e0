#include "sum_lines.h"

#include "steps.h"
#include "taps.h"

// The output columns first..end-1 that see kernel column kx on the map.
typedef struct {
    int32_t first, end;
} columns_t;

static columns_t columns_of(const fl_conv_params_t *p, const fl_map_dims_t *d, int32_t kx) {
    const int32_t before = p->pad_left - kx * p->dilation_w;  // of the map, as output column 0 has it
    const int32_t last = d->in_w - 1 + before;
    columns_t c = {0, last < 0 ? 0 : last / p->stride_w + 1};
    if (before > 0) {
        c.first = (before + p->stride_w - 1) / p->stride_w;
    }
    if (c.end > d->out_w) {
        c.end = d->out_w;
    }
    return c;
}

typedef struct {
    const fl_conv_params_t *p;
    const fl_map_dims_t *d;
    fl_sum_line_t line;
    const int8_t *x_row;  // column 0 of the input's row
    int32_t *acc_row;     // of the output's row
    void (*run)(const fl_sum_line_t *line);
} walk_t;

// Output columns first..end-1, whose first tap is kx.
static void columns(walk_t *v, int32_t first, int32_t end, int32_t kx, int32_t n) {
    if (first < end) {
        const int32_t column = first * v->p->stride_w - v->p->pad_left + kx * v->p->dilation_w;
        v->line.x = v->x_row + column * fl_x_step(v->d);
        v->line.pixels = end - first;
        v->line.n = n;
        v->line.acc = v->acc_row + first * v->d->out_c;
        v->run(&v->line);
    }
}

static void kernel_row(walk_t *v, const fl_part_t *part, int32_t joined, const int8_t *w) {
    const int32_t in_c = v->d->in_c, taps = v->p->kernel_w;
    columns_t all = {0, 0};  // those that see all taps
    if (joined) {
        all.first = columns_of(v->p, v->d, 0).first;
        all.end = columns_of(v->p, v->d, taps - 1).end;
    }
    if (all.first < all.end) {
        v->line.w = w;
        columns(v, all.first, all.end, 0, taps * in_c);
    } else {
        all.first = all.end = v->d->out_w;
    }
    for (int32_t kx = 0; kx < taps; kx++) {
        const columns_t c = columns_of(v->p, v->d, kx);
        v->line.w = w + kx * part->tap;
        columns(v, c.first, c.end < all.first ? c.end : all.first, kx, in_c);
        columns(v, c.first > all.end ? c.first : all.end, c.end, kx, in_c);
    }
}

void fl_sum_lines(const fl_conv_params_t *p, int32_t x_zero, const fl_map_dims_t *d, const fl_part_t *part,
                  const int8_t *x, const int8_t *w, int32_t *acc, void (*line)(const fl_sum_line_t *line)) {
    const int32_t step = fl_x_step(d);
    walk_t v = {.p = p, .d = d, .run = line};
    v.line = (fl_sum_line_t){.row = part->row, .out_c = d->out_c, .x_zero = x_zero};
    if (p->kernel_h == 1 && p->kernel_w == 1 && p->stride_h == 1 && p->stride_w == 1 && d->out_w == d->in_w &&
        p->pad_top == 0 && p->pad_left == 0 && d->out_h <= d->in_h) {
        v.line.x = x;
        v.line.x_step = step;
        v.line.pixels = d->out_h * d->out_w;
        v.line.n = d->in_c;
        v.line.w = w;
        v.line.acc = acc;
        line(&v.line);
        return;
    }
    // nothing lies between the taps of a kernel row, neither in x nor in w
    const int32_t joined = p->kernel_w > 1 && p->dilation_w == 1 && step == d->in_c && part->tap == d->in_c;
    // not looked at in lines of one pixel, of which it may not fit 32 bits
    v.line.x_step = (int32_t)((uint32_t)p->stride_w * (uint32_t)step);
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        v.acc_row = acc + oy * d->out_w * d->out_c;
        for (int32_t ky = ty.first; ky < ty.end; ky++) {
            v.x_row = x + (ty.start + ky * p->dilation_h) * d->in_w * step;
            kernel_row(&v, part, joined, w + ky * p->kernel_w * part->tap);
        }
    }
}
