// The inner loop of the depthwise convolution: four channels of rectangles of output pixels that see the same taps.
#ifndef FIELDLOOP_KERNELS_FOUR_DSP_H
#define FIELDLOOP_KERNELS_FOUR_DSP_H

#include "fieldloop/fl_kernels.h"

// Steps are in bytes. Words in the order in which LDM takes them; the assembly has the offsets in it.
typedef struct {
    int8_t *out_first;       // of the line
    int8_t *out_end;         // of the line
    int32_t lines;           // of the rectangle
    const int8_t *x_first;   // the first tap of the line's first pixel
    int32_t x_delta;         // from where the taps of a pixel end to the next pixel's
    int32_t taps;            // of a row
    int32_t x_skip, w_skip;  // what is left of a row after its taps
    const uint32_t *w_end;
    uintptr_t nine;          // the taps are three rows of three, for which x_delta counts from the third row's start
    const uint32_t *w;       // first tap: two words each, the pairs of channels (0, 2) and (1, 3)
} fl_rectangle_t;

typedef struct {
    uint32_t bias[4];        // of the four channels
    const uint32_t *w;       // of the rectangle
    int32_t multiplier[4];
    int32_t down[4];         // right shift - 1
    int32_t twice_zero_1;    // 2 * zero point + 1
    uint32_t special;        // FL_FOUR_*
    uint32_t low, high;      // four times the clamp's limits
    int32_t x_tap, x_row;    // to the next tap, to the next row of taps
    uint32_t minus;          // the pair (-x_zero, -x_zero)
    int32_t out_line;        // to the next line
    int32_t x_line;
    const fl_rectangle_t *next, *end;  // rectangles that are left: of channel 0
    int32_t channel;         // the first of the four: bytes that lie before them at a pixel,
    int32_t x_channel;       //   and of the input
    int32_t out_step;        // to the pixel after the next
    int8_t *out;             // the next pixel
    fl_rectangle_t now;      // moves on line by line; all but its w
    uint32_t acc[4];
    const fl_quant_t *q;
} fl_four_t;

enum {
    FL_FOUR_CLAMPED = 1,  // to less than int8
    FL_FOUR_REST = 2,     // some scale is no short right shift

    FL_FOUR_TAPS = 128,   // at most
};

// What it is made for; its scratch is 8 bytes a tap. Four neighbouring outputs have inputs of their own, or share one.
static inline int fl_depthwise_is_four(const fl_conv_params_t *p, const fl_map_dims_t *d) {
    const int shared = d->in_c == 1 || p->depth_multiplier % 4 == 0;
    return d->out_c >= 4 && (p->depth_multiplier == 1 || shared) && p->kernel_h * p->kernel_w <= FL_FOUR_TAPS;
}

// From s->next to s->end, at least one.
void fl_four_dsp(fl_four_t *s);

// All four channels from one input.
void fl_four_shared_dsp(fl_four_t *s);

#endif
