// The kernels in two halves in plain C. Sums wrap: they are kept as uint32_t here, which int32_t may be read as.
#include "dot.h"
#include "finish.h"
#include "sum.h"
#include "steps.h"
#include "taps.h"

// What one output pixel sees of the part.
typedef struct {
    const int8_t *x;       // the map's pixel under the first tap on the map
    const int8_t *w;       // that tap of output channel 0
    int32_t rows, runs;    // kernel rows on the map; runs of n elements in each
    int32_t n;
    int32_t x_row, w_row;  // from one kernel row to the next
    int32_t x_run, w_run;  // from one run to the next
} seen_t;

static uint32_t centred_sum(const seen_t *v, int32_t x_zero) {
    uint32_t sum = 0;
    const int8_t *x_row = v->x;
    for (int32_t r = 0; r < v->rows; r++) {
        for (int32_t i = 0; i < v->runs; i++) {
            sum += fl_centred_sum(x_row + i * v->x_run, v->n, x_zero);
        }
        x_row += v->x_row;
    }
    return sum;
}

// `count`, 4 or 1, output channels from w on.
static void add_channels(const seen_t *v, const int8_t *w, int32_t row, int32_t count, int32_t x_zero, uint32_t *acc) {
    const int8_t *x_row = v->x;
    for (int32_t r = 0; r < v->rows; r++) {
        for (int32_t i = 0; i < v->runs; i++) {
            const int8_t *x = x_row + i * v->x_run;
            if (count == 4) {
                fl_dot4(x, w + i * v->w_run, row, v->n, x_zero, acc);
            } else {
                acc[0] += fl_dot(x, w + i * v->w_run, v->n, x_zero);
            }
        }
        x_row += v->x_row;
        w += v->w_row;
    }
}

void fl_conv2d_sum_plain(const fl_conv_params_t *p, int32_t x_zero, int32_t w_zero, const fl_map_dims_t *d,
                         const fl_part_t *part, const int8_t *x, const int8_t *w, int32_t *acc) {
    const int32_t step = fl_x_step(d);
    // taps side by side are one run where nothing lies between them, neither in x nor in w
    const int32_t contiguous = p->dilation_w == 1 && step == d->in_c && part->tap == d->in_c;
    uint32_t *sum = (uint32_t *)acc;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++, sum += d->out_c) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            const int32_t taps = tx.end - tx.first;
            if (ty.end <= ty.first || taps <= 0) {
                continue;  // a window that lies in the padding
            }
            const int32_t pixel =
                (ty.start + ty.first * p->dilation_h) * d->in_w + tx.start + tx.first * p->dilation_w;
            seen_t v = {
                .x = x + pixel * step,
                .w = w + (ty.first * p->kernel_w + tx.first) * part->tap,
                .rows = ty.end - ty.first,
                .runs = contiguous ? 1 : taps,
                .n = contiguous ? taps * d->in_c : d->in_c,
                .w_run = part->tap,
            };
            // where nothing is read, a step may not even fit 32 bits
            v.x_row = v.rows > 1 ? p->dilation_h * d->in_w * step : 0;
            v.w_row = v.rows > 1 ? p->kernel_w * part->tap : 0;
            v.x_run = v.runs > 1 ? p->dilation_w * step : 0;
            const uint32_t base = w_zero ? 0u - (uint32_t)w_zero * centred_sum(&v, x_zero) : 0u;
            const int8_t *row = v.w;
            for (int32_t c = 0; c < d->out_c;) {
                const int32_t count = d->out_c - c >= 4 ? 4 : 1;
                for (int32_t j = 0; j < count; j++) {
                    sum[c + j] += base;
                }
                add_channels(&v, row, part->row, count, x_zero, sum + c);
                c += count;
                if (c < d->out_c) {
                    row += count * part->row;
                }
            }
        }
    }
}

void fl_finish_sums_plain(const fl_quant_t *q, int32_t pixels, int32_t channels, const int32_t *b, const int32_t *acc,
                          int8_t *out, int32_t out_step) {
    for (int32_t i = 0; i < pixels; i++) {
        fl_finish_run(q, b, 0, channels, (const uint32_t *)acc, out);
        acc += channels;
        out += out_step;
    }
}

void fl_pool_sum_plain(int32_t pixels, int32_t channels, const int8_t *x, int32_t x_step, int32_t *acc) {
    uint32_t *sum = (uint32_t *)acc;
    for (int32_t i = 0; i < pixels; i++) {
        for (int32_t c = 0; c < channels; c++) {
            const int32_t v = x[c];
            sum[c] += (uint32_t)v;
        }
        x += x_step;
    }
}
