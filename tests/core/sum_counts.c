// Bare metal: executed instructions of a convolution whole and in parts.
//
//   CASE PARTS INSTRUCTIONS     0 parts: the whole kernel. Else all sums, from accumulators of 0, and what finishes them.
#include <stdio.h>

#include "../../bench/kernel_harness/counter.h"
#include "fieldloop/fl_kernels_sum.h"

enum { BYTES = 65536, CHANNELS = 64 };

static int8_t x[BYTES], w[BYTES], out[BYTES], scratch[BYTES] __attribute__((aligned(16)));
static int32_t acc[BYTES / 4], b[CHANNELS], folded[CHANNELS];
static fl_requant_t requant[CHANNELS];

typedef struct {
    const char *name;
    int32_t height, width, in_c, kernel, out_c;
} case_t;

static const case_t cases[] = {
    {"pointwise64", 25, 5, 64, 1, 64},
    {"pointwise16", 24, 24, 16, 1, 16},
    {"kernel3", 12, 12, 32, 3, 16},
    {"vector", 1, 1, 640, 1, 64},
};

static void run(const case_t *v, int32_t parts) {
    const int16_t pad = (int16_t)(v->kernel / 2);
    const fl_conv_params_t p = {.kernel_h = (uint16_t)v->kernel, .kernel_w = (uint16_t)v->kernel, .stride_h = 1, .stride_w = 1,
                                .dilation_h = 1, .dilation_w = 1, .pad_top = pad, .pad_left = pad, .depth_multiplier = 1};
    const fl_quant_t q = {-128, 3, -128, 127, requant, 1, 0, folded, 0};
    fl_map_dims_t d = {v->height, v->width, v->in_c, v->height, v->width, v->out_c, 0, 0, 0};
    const int32_t taps = v->kernel * v->kernel, pixels = v->height * v->width;
    const uint32_t start = COUNTER;
    if (parts) {
        const fl_part_t part = {v->in_c, taps * v->in_c};
        d.in_c = v->in_c / parts;
        fl_fill(pixels * v->out_c, 4, 0, acc);
        for (int32_t i = 0; i < parts; i++) {
            fl_conv2d_sum(&p, q.x_zero, 0, &d, &part, x, w + i * d.in_c, acc);
        }
        fl_finish_sums(&q, pixels, v->out_c, b, acc, out, v->out_c);
    } else if (pixels == 1) {
        fl_fully_connected(&q, 1, v->out_c, v->in_c, x, w, b, scratch, out);
    } else {
        fl_conv2d(&p, &q, &d, x, w, b, scratch, out);
    }
    const uint32_t spent = instructions(COUNTER - start);
    printf("%s %ld %lu\n", v->name, (long)parts, (unsigned long)spent);
}

int main(void) {
    PRESCALER = 0;
    for (int32_t i = 0; i < CHANNELS; i++) {
        requant[i] = (fl_requant_t){0x50000000 + i * 12345, -9};
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int32_t parts = 0; parts <= cases[i].in_c / 4; parts = parts ? 2 * parts : 1) {
            run(&cases[i], parts);
        }
    }
    printf("end\n");
    return 0;
}
