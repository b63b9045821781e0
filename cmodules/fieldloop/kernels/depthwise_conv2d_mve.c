// Depthwise convolution: 16 channels at a time, whose rows become windows (windows_mve.h), and channel by channel over
// as many windows as the scratch holds, so that a channel's weights stay in registers.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "clamp_mve.h"
#include "finish_mve.h"
#include "mve.h"
#include "steps.h"
#include "window_rows_mve.h"
#include "windows_mve.h"

enum { GROUP = FL_WINDOW_CHANNELS, TWO_FROM = 8, WINDOWS_AT_ONCE = 32 };

typedef struct {
    const fl_conv_params_t *p;
    const fl_quant_t *q;
    const fl_map_dims_t *d;
    const int8_t *x, *w;
    const int32_t *b;
    fl_windows_mve_t cut;
    int8_t *table, *edge, *windows;  // scratch
    int8_t *out;
} work_t;

// The weights of channels c.. as window_rows_mve.h wants them: by columns of the kernel, four rows a word.
static void put_table(const work_t *v, int32_t c, int32_t n) {
    static const uint32_t entries[4] = {0, 16, 32, 48};
    const fl_conv_params_t *p = v->p;
    const mve_pred16_t some = vctp8q((uint32_t)n);
    const int32_t step = fl_w_step(v->d);
    for (int32_t i = 0; i < FL_WINDOWS_TABLE; i += 16) {
        vstrbq_s8(v->table + i, vdupq_n_s8(0));
    }
    for (int32_t kx = 0; kx < p->kernel_w; kx++) {
        int8x16x4_t rows;
        for (int32_t ky = 0; ky < 4; ky++) {
            const int8_t *from = v->w + (ky * p->kernel_w + kx) * step + c;
            rows.val[ky] = ky < p->kernel_h ? vldrbq_z_s8(from, some) : vdupq_n_s8(0);
        }
        int32_t words[GROUP];
        vst4q_s8((int8_t *)words, rows);
        int8_t *to = v->table + (v->cut.two ? TWO_FROM : 0) + 4 * kx;
        for (int32_t i = 0; i < GROUP; i += 4) {
            vstrwq_scatter_offset_s32((int32_t *)(void *)(to + 16 * i), vldrwq_u32(entries), vldrwq_s32(words + i));
        }
    }
}

static int32_t folded(const work_t *v, int32_t c, const int8_t *weights) {
    if (v->q->folded) {
        return v->q->folded[c];
    }
    const uint32_t sum = (uint32_t)vaddvaq_s8(0, vldrbq_s8(weights));
    return (int32_t)((v->b ? (uint32_t)v->b[c] : 0u) - (uint32_t)v->q->x_zero * sum);
}

// What is the same for all channels of a strip of `width` output columns.
static void set_rows(const work_t *v, int32_t width, fl_window_rows_t *r) {
    const int32_t turn = v->cut.two ? 2 : 4;
    const int32_t column = 4 * v->cut.channels;
    const int32_t pixel = fl_y_step(v->d);
    const int32_t line = v->d->out_w * pixel;
    r->step = v->cut.two ? 2 * column : v->p->stride_w * column;
    r->out_step = turn * pixel;
    r->zero = v->q->out_zero;
    r->turns = width < turn ? 1 : width / turn;
    r->back = width < turn ? 0 : -width & (turn - 1);
    r->x_row = v->cut.cols * column;
    r->out_row = v->cut.two ? 2 * line : line;
    r->lanes = width < 4 ? width : 4;
    for (int32_t i = 0; i < 4; i++) {
        const int32_t at = v->cut.two ? i : i < v->p->kernel_w ? i * v->p->dilation_w : 0;
        r->gather[i] = (uint32_t)(at * column);
        r->place[i] = (uint32_t)(v->cut.two ? i / 2 * line + i % 2 * pixel : i * pixel);
    }
}

// Output channels c.. over the windows of rows oy..; `row` is for their strip, whose first output is `out`.
static void run_channels(const work_t *v, fl_window_rows_t *row, int32_t c, int32_t n, int32_t first_ic, int32_t rows,
                         int8_t *out) {
    const int32_t multiplier = v->p->depth_multiplier;
    const int8_t *x = v->windows + 4 * (c / multiplier - first_ic);
    int32_t left = multiplier - c % multiplier;  // outputs of this input channel
    const int8_t *table = v->table;
    const fl_requant_t *requant = v->q->requant + (uint32_t)c * v->q->requant_stride;
    for (int32_t i = 0; i < n; i++) {
        row->x = x;
        row->out = out + i;
        row->bias = folded(v, c + i, table + (v->cut.two ? TWO_FROM : 0));
        row->multiplier = requant->multiplier;
        row->shift = requant->shift;
        row->table = table;
        row->rows = rows;
        if (v->cut.two) {
            if (requant->shift < 0) {
                fl_window_two_right_mve(row);
            } else {
                fl_window_two_any_mve(row);
            }
        } else if (requant->shift < 0) {
            fl_window_one_right_mve(row);
        } else {
            fl_window_one_any_mve(row);
        }
        table += 16;
        requant += v->q->requant_stride;
        if (--left == 0) {
            x += 4;
            left = multiplier;
        }
    }
}

// Output channels c.. of all pixels.
static void run_group(const work_t *v, int32_t c, int32_t n) {
    const fl_windows_mve_t *cut = &v->cut;
    const fl_map_dims_t *d = v->d;
    const int32_t ic = d->in_c <= GROUP ? 0 : c / v->p->depth_multiplier;
    const int32_t height = cut->two ? 2 : 1;
    const int32_t step = fl_y_step(d);
    put_table(v, c, n);
    for (int32_t ox = 0; ox < d->out_w; ox += cut->out_cols) {
        int32_t width = d->out_w - ox < cut->out_cols ? d->out_w - ox : cut->out_cols;
        if (cut->two && width == 1) {
            ox--;  // a column again: they come in pairs
            width = 2;
        }
        fl_window_rows_t row;
        set_rows(v, width, &row);
        int32_t oy[WINDOWS_AT_ONCE];
        const int32_t most = cut->windows < WINDOWS_AT_ONCE ? cut->windows : WINDOWS_AT_ONCE;
        for (int32_t y = 0; y < d->out_h;) {
            int32_t rows = 0;
            for (; rows < most && y < d->out_h; rows++, y += height) {
                oy[rows] = y + height <= d->out_h ? y : d->out_h - height;
            }
            fl_windows_fill_mve(cut, v->p, d, v->x, v->edge, oy, rows, ox, ic, v->windows);
            row.last_row = rows > 1 ? (oy[rows - 1] - oy[rows - 2] - height) * d->out_w * step : 0;
            run_channels(v, &row, c, n, ic, rows, v->out + (oy[0] * d->out_w + ox) * step + c);
        }
    }
}

void fl_depthwise_conv2d_mve(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                             const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    work_t v;
    v.cut = fl_windows_of_mve(p, d);
    if (v.cut.bytes == 0 || q->w_zero != 0 || q->flags & FL_OP_SINGLE_ROUNDING) {
        fl_depthwise_conv2d_plain(p, q, d, x, w, b, scratch, out);
        return;
    }
    v.p = p;
    v.q = q;
    v.d = d;
    v.x = x;
    v.w = w;
    v.b = b;
    v.out = out;
    v.windows = scratch;
    v.table = v.windows + v.cut.bytes + FL_WINDOWS_SLACK;
    v.edge = v.table + FL_WINDOWS_TABLE;
    vstrbq_s8(v.edge, vdupq_n_s8((int8_t)q->x_zero));
    for (int32_t c = 0; c < d->out_c; c += GROUP) {
        run_group(&v, c, d->out_c - c < GROUP ? d->out_c - c : GROUP);
    }
    fl_clamp_pixels_mve(q, d, out);
}

#else
typedef int fl_no_depthwise_conv2d_mve_t;  // a translation unit may not be empty
#endif
