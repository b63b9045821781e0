// Depthwise convolution with the DSP extension: four channels at a time, whose weights are widened once for all pixels.
//
// The output map falls into rectangles of pixels that see the same taps: with a 3x3 kernel and a border of one, nine of
// them. Each is one call of the inner loop.
#include "finish_dsp.h"
#include "four_dsp.h"
#include "kernels/variants.h"
#include "steps.h"
#include "taps.h"

#if FL_KERNELS == 1

// Four channels of weights of each tap to pairs, two words.
static void widen_taps(const int8_t *w, int32_t step, int32_t taps, uint32_t *to) {
#if FL_DSP_ASSEMBLY
#define TAP                         \
    "ldr %[even], [%[w]]\n\t"       \
    "add %[w], %[w], %[step]\n\t"   \
    "sxtb16 %[odd], %[even], ror #8\n\t" \
    "sxtb16 %[even], %[even]\n\t"   \
    "strd %[even], %[odd], [%[to]], #8\n\t"
    uint32_t even, odd;
    __asm__ volatile(
        "subs %[taps], %[taps], #3\n\t"
        "blt 2f\n"
        "1:\n\t" TAP TAP TAP
        "subs %[taps], %[taps], #3\n\t"
        "bge 1b\n"
        "2:\n\t"
        "adds %[taps], %[taps], #3\n\t"
        "beq 4f\n"
        "3:\n\t" TAP
        "subs %[taps], %[taps], #1\n\t"
        "bne 3b\n"
        "4:\n\t"
        : [w] "+r"(w), [taps] "+r"(taps), [to] "+r"(to), [even] "=&r"(even), [odd] "=&r"(odd)
        : [step] "r"(step)
        : "cc", "memory");
#else
    for (; taps > 0; taps--) {
        const uint32_t word = fl_word(w);
        to[0] = fl_sxtb16(word);
        to[1] = fl_sxtb16_odd(word);
        to += 2;
        w += step;
    }
#endif
}

// Output positions from..end-1 along an axis see the same taps.
typedef struct {
    int32_t from, end;
    fl_taps_t taps;  // of `from`
} span_t;

// The span that begins at `from`: all positions whose taps all lie on the map, else one.
static span_t span_from(int32_t from, int32_t count, int32_t stride, int32_t pad, int32_t dilation, int32_t kernel,
                        int32_t size) {
    span_t s = {from, from + 1, fl_taps(from, stride, pad, dilation, kernel, size)};
    if (s.taps.first == 0 && s.taps.end == kernel) {
        const int32_t end = (size - 1 - (kernel - 1) * dilation + pad) / stride + 1;
        s.end = end < count ? end : count;
    }
    return s;
}

enum { RECTANGLES = 9 };  // worked out at a time

// Steps of the input from one tap to the next and from one row of taps to the next; wrapped where never taken.
typedef struct {
    int32_t tap, row;
} steps_t;

// Of channel 0.
static fl_rectangle_t rectangle(const fl_conv_params_t *p, const fl_map_dims_t *d, steps_t step, const span_t *ys,
                                const span_t *xs, const int8_t *x, const uint32_t *scratch, int8_t *out) {
    const fl_taps_t ty = ys->taps, tx = xs->taps;
    const int32_t x_step = fl_x_step(d), y_step = fl_y_step(d);
    int32_t rows = ty.end - ty.first, taps = tx.end - tx.first, kernel_w = p->kernel_w;
    fl_rectangle_t r = {
        .out_first = out + (ys->from * d->out_w + xs->from) * y_step,
        .lines = ys->end - ys->from,
        .x_first = x,
        .w = scratch,
        .w_end = scratch,
    };
    r.out_end = r.out_first + (xs->end - xs->from) * y_step;
    if (rows <= 0 || taps <= 0) {
        return r;  // nothing is seen but padding
    }
    r.x_first += ((ty.start + ty.first * p->dilation_h) * d->in_w + tx.start + tx.first * p->dilation_w) * x_step;
    r.w += 2 * (ty.first * kernel_w + tx.first);
    if (kernel_w == 1) {  // a column goes as a row
        kernel_w = taps = rows;
        rows = 1;
    }
    r.w_end = r.w + 2 * rows * kernel_w;
    r.w_skip = 8 * (kernel_w - taps);
    r.taps = taps;
    r.nine = rows == 3 && taps == 3 && kernel_w == 3;
    // wrapping: what lies beyond the last row or tap is no address
    r.x_skip = (int32_t)((uint32_t)step.row - (uint32_t)(taps - 1) * (uint32_t)step.tap);
    r.x_delta = (int32_t)((uint32_t)p->stride_w * (uint32_t)x_step - (uint32_t)(r.nine ? 2 : rows) * (uint32_t)step.row);
    return r;
}

// Scales of channels c to c + 3.
static void load_scales(fl_four_t *s, uint32_t special, int32_t c, const int32_t *b) {
    const uint32_t stride = s->q->requant_stride;
    const fl_requant_t *r = s->q->requant + (uint32_t)c * stride;
    for (int32_t i = 0; i < 4; i++) {
        const fl_scale_t scale = fl_scale_of(r);
        s->bias[i] = b ? (uint32_t)b[c + i] : 0;
        s->multiplier[i] = scale.multiplier;
        s->down[i] = scale.down;
        special |= (uint32_t)scale.down >= FL_NEAR ? FL_FOUR_REST : 0;
        r += stride;
    }
    s->special = special;
}

static void all_channels(fl_four_t *s, const fl_rectangle_t *rectangles, int32_t count, const fl_conv_params_t *p,
                         const fl_map_dims_t *d, const int8_t *w, const int32_t *b, uint32_t *scratch) {
    const int32_t channels = d->out_c, multiplier = p->depth_multiplier, w_step = fl_w_step(d);
    const int32_t taps = p->kernel_h * p->kernel_w;
    const uint32_t special =
        (fl_is_clamped(s->q) ? FL_FOUR_CLAMPED : 0) | (s->q->flags & FL_OP_SINGLE_ROUNDING ? FL_FOUR_REST : 0);
    s->end = rectangles + count;
    for (int32_t from = 0; from < channels; from += 4) {
        // the last four may overlap those before them, and make the same bytes again
        const int32_t c = from + 4 <= channels ? from : channels - 4;
        load_scales(s, special, c, b);
        widen_taps(w + c, w_step, taps, scratch);
        s->next = rectangles;
        s->channel = c;
        if (multiplier == 1) {
            s->x_channel = c;
            fl_four_dsp(s);
        } else {
            s->x_channel = c / multiplier;
            fl_four_shared_dsp(s);
        }
    }
}

void fl_depthwise_conv2d_dsp(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                             const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    if (!fl_depthwise_is_four(p, d) || q->w_zero != 0) {
        fl_depthwise_conv2d_plain(p, q, d, x, w, b, scratch, out);
        return;
    }
    const uint32_t x_step = (uint32_t)fl_x_step(d), row = (uint32_t)d->in_w * x_step;
    const int32_t down = (int32_t)((uint32_t)p->dilation_h * row);
    const steps_t step = {
        .tap = p->kernel_w == 1 ? down : (int32_t)((uint32_t)p->dilation_w * x_step),
        .row = down,
    };
    fl_four_t s;  // not cleared: on a map of one row that is a tenth of the work
    s.twice_zero_1 = 2 * q->out_zero + 1;
    s.low = (uint8_t)q->act_min * 0x01010101u;
    s.high = (uint8_t)q->act_max * 0x01010101u;
    s.out_step = fl_y_step(d);
    s.out_line = d->out_w * fl_y_step(d);
    s.x_line = (int32_t)((uint32_t)p->stride_h * row);
    s.x_tap = step.tap;
    s.x_row = step.row;
    s.minus = fl_pair_of(-q->x_zero);
    s.q = q;
    fl_rectangle_t rectangles[RECTANGLES];
    int32_t count = 0;
    span_t ys, xs;
    for (int32_t oy = 0; oy < d->out_h; oy = ys.end) {
        ys = span_from(oy, d->out_h, p->stride_h, p->pad_top, p->dilation_h, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox = xs.end) {
            xs = span_from(ox, d->out_w, p->stride_w, p->pad_left, p->dilation_w, p->kernel_w, d->in_w);
            rectangles[count++] = rectangle(p, d, step, &ys, &xs, x, scratch, out);
            const int last = ys.end == d->out_h && xs.end == d->out_w;
            if (count == RECTANGLES || last) {
                all_channels(&s, rectangles, count, p, d, w, b, scratch);
                count = 0;
            }
        }
    }
}

#else
typedef int fl_no_depthwise_conv2d_dsp_t;  // a translation unit may not be empty
#endif
