// Convolution. With a horizontal dilation of 1 and one group, the taps of one kernel row that lie on the map are one
// contiguous run of inputs and one of weights, so the inner loop is a plain dot product of up to kernel_w * in_c elements.
#include "dot.h"
#include "finish.h"
#include "kernels/variants.h"
#include "steps.h"
#include "taps.h"

// What one output pixel sees of one group's channels.
typedef struct {
    const int8_t *x;   // the map's pixel under tap (ty.first, tx.first), the group's first channel
    int32_t w_from;    // that tap's place in a row of weights
    int32_t rows;      // kernel rows on the map
    int32_t runs;      // runs a kernel row: 1, or one a tap where dilated or grouped
    int32_t n;         // elements a run
    int32_t x_row, w_row;  // from one kernel row to the next
    int32_t x_run, w_run;  // from one run to the next
} patch_t;

static uint32_t patch_dot(const patch_t *v, const int8_t *w, int32_t x_zero) {
    uint32_t acc = 0;
    const int8_t *x_row = v->x;
    const int8_t *w_row = w + v->w_from;
    for (int32_t r = 0; r < v->rows; r++) {
        for (int32_t i = 0; i < v->runs; i++) {
            acc += fl_dot(x_row + i * v->x_run, w_row + i * v->w_run, v->n, x_zero);
        }
        x_row += v->x_row;
        w_row += v->w_row;
    }
    return acc;
}

static void patch_dot4(const patch_t *v, const int8_t *w, int32_t stride, int32_t x_zero, uint32_t acc[4]) {
    const int8_t *x_row = v->x;
    const int8_t *w_row = w + v->w_from;
    for (int32_t r = 0; r < v->rows; r++) {
        for (int32_t i = 0; i < v->runs; i++) {
            fl_dot4(x_row + i * v->x_run, w_row + i * v->w_run, stride, v->n, x_zero, acc);
        }
        x_row += v->x_row;
        w_row += v->w_row;
    }
}

// The sum of all centred inputs of the patch: what a weight zero point is multiplied with.
static uint32_t patch_sum(const patch_t *v, int32_t x_zero) {
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

// Group 0; the others lie `w_c` channels of the map further each.
static patch_t patch_of(const fl_conv_params_t *p, const fl_map_dims_t *d, int32_t w_c, const int8_t *x, fl_taps_t ty,
                        fl_taps_t tx) {
    const int32_t taps = tx.end - tx.first, step = fl_x_step(d);
    const int32_t contiguous = p->dilation_w == 1 && w_c == step;
    patch_t v = {
        .rows = ty.end - ty.first,
        .runs = contiguous ? 1 : taps,
        .n = contiguous ? taps * w_c : w_c,
        .w_from = (ty.first * p->kernel_w + tx.first) * w_c,
        .w_row = p->kernel_w * w_c,
        .w_run = w_c,
    };
    if (v.rows <= 0 || taps <= 0) {
        v.rows = 0;  // a window that lies in the padding sees nothing: no address to form
        v.x = x;
        return v;
    }
    v.x = x + ((ty.start + ty.first * p->dilation_h) * d->in_w + tx.start + tx.first * p->dilation_w) * step;
    // beyond the last kernel row nothing is read: with one row the step may not even fit 32 bits
    v.x_row = v.rows > 1 ? p->dilation_h * d->in_w * step : 0;
    v.x_run = v.runs > 1 ? p->dilation_w * step : 0;
    return v;
}

// The `channels` outputs of one pixel that see the patch, from channel `c` on.
static void one_group(const patch_t *v, const fl_quant_t *q, int32_t stride, const int8_t *w, const int32_t *b,
                      int32_t c, int32_t channels, int8_t *out) {
    const int32_t end = c + channels;
    const uint32_t base = q->w_zero ? 0u - (uint32_t)q->w_zero * patch_sum(v, q->x_zero) : 0u;
    for (; c + 4 <= end; c += 4) {
        uint32_t acc[4] = {base, base, base, base};
        patch_dot4(v, w, stride, q->x_zero, acc);
        out = fl_finish_run(q, b, c, 4, acc, out);
        w += 4 * stride;
    }
    for (; c < end; c++) {
        const uint32_t acc = base + patch_dot(v, w, q->x_zero);
        out = fl_finish_run(q, b, c, 1, &acc, out);
        w += stride;
    }
}

void fl_conv2d_plain(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                     const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    (void)scratch;
    const int32_t groups = p->groups ? p->groups : 1;
    const int32_t w_c = d->in_c / groups;
    const int32_t channels = d->out_c / groups;
    const int32_t stride = p->kernel_h * p->kernel_w * w_c, step = fl_y_step(d);
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            patch_t v = patch_of(p, d, w_c, x, ty, tx);
            for (int32_t g = 0; g < groups; g++) {
                const int32_t c = g * channels;
                one_group(&v, q, stride, w + c * stride, b, c, channels, out + c);
                v.x += w_c;
            }
            out += step;
        }
    }
}
