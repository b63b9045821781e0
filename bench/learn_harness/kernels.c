// Runs the backward kernels on fixed cases and tells, for each, how many multiply-accumulates (weights, for steps) it has,
// how many instructions it executed, and the CRC-32 of what came out. Bare metal, under -icount shift=8, as
// bench/kernel_harness/main.c counts; on the host (no FPGAIO) the CRCs alone are of use.
#include <stdio.h>
#include <string.h>

#include "../kernel_harness/counter.h"
#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_learn.h"
#include "fieldloop/fl_random.h"

enum { MAP = 28 * 28 * 16, WEIGHTS = 1 << 15, SPOTS = 800, X_ZERO = -5 };

static _Alignas(16) int8_t map_in[MAP], weights[WEIGHTS], low[1024];
static _Alignas(16) float real[MAP], master[1024], moment1[1024], moment2[1024];
static fl_spot_t spots[SPOTS];
static uint64_t clipped;

typedef struct {
    const char *name;
    int32_t in_h, in_w, in_c, out_c, kernel, stride, pad;
    uint32_t every;  // of the outputs of a channel, one in so many is a spot
} map_case_t;

static const map_case_t maps[] = {
    {"3x3 16 channels", 14, 14, 16, 16, 3, 1, 1, 1},     {"3x3 16 channels, sparse", 14, 14, 16, 16, 3, 1, 1, 20},
    {"1x1 64 channels", 25, 5, 64, 64, 1, 1, 0, 1},      {"1x1 64 channels, sparse", 25, 5, 64, 64, 1, 1, 0, 20},
    {"5x5 6 channels", 12, 12, 6, 12, 5, 1, 0, 1},       {"3x3 1 channel", 28, 28, 1, 8, 3, 1, 1, 1},
    {"1x9 of 6 channels", 1, 128, 6, 16, 9, 1, 4, 1},    {"3x3 stride 2 8 channels", 24, 24, 8, 16, 3, 2, 1, 1},
};
// What vectors of some processors take for 0: deltas from 2^-1 down to 2^-140, many of them subnormal.
static int tiny;
static const map_case_t tiny_maps[] = {
    {"tiny 3x3", 14, 14, 16, 16, 3, 1, 1, 1},
    {"tiny 1x1", 25, 5, 64, 64, 1, 1, 0, 1},
    {"tiny 5x5", 12, 12, 6, 12, 5, 1, 0, 1},
};
static const map_case_t depthwise_maps[] = {
    {"depthwise 3x3", 25, 5, 64, 64, 3, 1, 1, 1},
    {"depthwise 3x3, sparse", 25, 5, 64, 64, 3, 1, 1, 20},
    {"depthwise 3x3 stride 2", 24, 24, 16, 16, 3, 2, 1, 1},
};

static uint32_t start;

static void begin(void) {
    start = COUNTER;
}

static void end(const char *name, const char *what, uint32_t macs, const void *out, uint32_t bytes) {
    const uint32_t spent = instructions(COUNTER - start);
    printf("%s|%s|%lu|%lu|%08lx\n", name, what, (unsigned long)macs, (unsigned long)spent,
           (unsigned long)fl_crc32(0, out, bytes));
}

static float some(uint32_t at, float size) {
    return ((float)(int32_t)(fl_mix(at) >> 8) - 8388608.0f) * (size / 8388608.0f);
}

static float delta_of(uint32_t at, float size) {
    for (uint32_t i = fl_mix(at + 99) % 140; tiny && i > 0; i--) {
        size = size * 0.5f;
    }
    return some(at, size);
}

static void fill(void) {
    fl_random_fill(map_in, sizeof map_in, 1);
    fl_random_fill(weights, sizeof weights, 2);
    memset(real, 0, sizeof real);
    for (uint32_t j = 0; tiny && j < MAP; j++) {  // sums that are subnormal, and nothing to add to every other
        uint32_t bits = fl_mix(j) & 0x7fffffu;
        memcpy(real + j, &bits, 4);
        if (fl_mix(j) >> 31) {
            map_in[j] = X_ZERO;
            weights[j] = 0;
        }
    }
}

static uint32_t taps_of(const map_case_t *c, const fl_spot_t *s, uint32_t count) {
    uint32_t taps = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (int32_t k = 0; k < c->kernel * c->kernel; k++) {
            int32_t y = s[i].y * c->stride - c->pad + k / c->kernel;
            int32_t x = s[i].x * c->stride - c->pad + k % c->kernel;
            taps += y >= 0 && y < c->in_h && x >= 0 && x < c->in_w;
        }
    }
    return taps;
}

static void run_map(const map_case_t *c, int depthwise) {
    const int32_t kernel_h = c->in_h == 1 ? 1 : c->kernel;
    const int32_t pad_h = c->in_h == 1 ? 0 : c->pad;
    const int32_t out_h = (c->in_h + 2 * pad_h - kernel_h) / c->stride + 1;
    const int32_t out_w = (c->in_w + 2 * c->pad - c->kernel) / c->stride + 1;
    const fl_conv_params_t p = {.kernel_h = kernel_h,
                                .kernel_w = c->kernel,
                                .stride_h = c->stride,
                                .stride_w = c->stride,
                                .dilation_h = 1,
                                .dilation_w = 1,
                                .pad_top = pad_h,
                                .pad_left = c->pad,
                                .depth_multiplier = 1};
    const fl_map_dims_t d = {
        .in_h = c->in_h, .in_w = c->in_w, .in_c = c->in_c, .out_h = out_h, .out_w = out_w, .out_c = c->out_c};
    uint32_t count = 0;
    for (int32_t i = 0; i < out_h * out_w && count < SPOTS; i++) {
        if (fl_mix((uint32_t)i) % c->every == 0) {
            spots[count].y = (uint16_t)(i / out_w);
            spots[count].x = (uint16_t)(i % out_w);
            spots[count].delta.f = delta_of((uint32_t)i, 0.1f);
            count++;
        }
    }
    uint32_t macs = taps_of(c, spots, count) * (uint32_t)(depthwise ? 1 : c->in_c);
    if (kernel_h != c->kernel) {  // the rows that the count above took for the map's
        macs = 0;
        for (uint32_t i = 0; i < count; i++) {
            for (int32_t k = 0; k < c->kernel; k++) {
                int32_t x = spots[i].x - c->pad + k;
                macs += x >= 0 && x < c->in_w ? (uint32_t)c->in_c : 0;
            }
        }
    }
    // chunks of 32, as the learner has them
    fill();
    begin();
    for (uint32_t i = 0; i < count; i += 32) {
        uint32_t n = count - i < 32 ? count - i : 32;
        if (depthwise) {
            fl_spots_depthwise_conv2d_input(&p, &d, spots + i, n, 3, weights, 0.01f, real);
        } else {
            fl_spots_conv2d_input(&p, &d, spots + i, n, weights, 0.01f, real);
        }
    }
    end(c->name, "input", macs, real, (uint32_t)(c->in_h * c->in_w * c->in_c) * 4);
    fill();
    begin();
    for (uint32_t i = 0; i < count; i += 32) {
        uint32_t n = count - i < 32 ? count - i : 32;
        if (depthwise) {
            fl_spots_depthwise_conv2d_row(&p, &d, spots + i, n, 3, map_in, X_ZERO, real);
        } else {
            fl_spots_conv2d_row(&p, &d, spots + i, n, map_in, X_ZERO, real);
        }
    }
    end(c->name, "row", macs, real, (uint32_t)(kernel_h * c->kernel * (depthwise ? 1 : c->in_c)) * 4);
}

static void run_rows(const char *name, uint32_t rows, uint32_t cols, uint32_t every) {
    static float delta[64];
    static uint16_t kept[64];
    const float scale = 0.01f;
    const fl_row_scales_t scales = {&scale, 0};
    uint32_t count = 0;
    for (uint32_t i = 0; i < rows; i++) {
        delta[i] = delta_of(i, 0.5f);
        if (i % every == 0) {
            kept[count++] = (uint16_t)i;
        }
    }
    fill();
    begin();
    fl_rows_fully_connected_input(delta, kept, count, weights, &scales, cols, real);
    end(name, "input", count * cols, real, cols * 4);
}

static fl_step_rule_t rule(float lr, const float *scale) {
    const fl_step_rule_t u = {.lr = lr,
                              .x_scale = 0.02f,
                              .x_zero = -128,
                              .w_scale = {scale, 0},
                              .key = 77,
                              .max_step = 254,
                              .beta1 = 0.9f,
                              .beta2 = 0.999f,
                              .decay1 = 0.9f,
                              .decay2 = 0.999f,
                              .clipped = &clipped};
    return u;
}

static void run_step_fully_connected(const char *name, float lr, uint32_t zeros) {
    const float scale = 0.01f;
    const fl_step_rule_t u = rule(lr, &scale);
    fl_trained_t t = {.w = weights, .row_stride = 784, .step = 1};
    fill();
    for (uint32_t j = 0; j < 784; j++) {  // runs of 16, as strokes on paper are
        if (fl_mix(j / 16) % 100 < zeros) {
            map_in[j] = -128;
        }
    }
    begin();
    for (uint32_t row = 0; row < 8; row++) {
        fl_step_fully_connected_row(&u, &t, row, some(row, 0.1f), map_in, 784);
    }
    end(name, "step", 8 * 784, weights, 8 * 784);
}

static void run_step_row(const char *name, float lr, int moments, int kind, uint32_t step) {
    const float scale = 0.01f;
    const fl_step_rule_t u = rule(lr, &scale);
    fl_trained_t t = {.w = weights, .row_stride = step == 1 ? 144 : 1, .step = step};
    static float gradient[144];
    fill();
    memset(low, 0, sizeof low);
    memset(moment1, 0, sizeof moment1);
    memset(moment2, 0, sizeof moment2);
    for (uint32_t j = 0; j < 1024; j++) {
        master[j] = (float)weights[j];
    }
    for (uint32_t j = 0; j < 144; j++) {
        gradient[j] = some(j, 5.0f);
    }
    t.low = kind == FL_WEIGHTS_INT16 ? low : NULL;
    t.master = kind == FL_WEIGHTS_F32 ? master : NULL;
    t.moment1 = moments > 0 ? moment1 : NULL;
    t.moment2 = moments > 1 ? moment2 : NULL;
    begin();
    for (uint32_t row = 0; row < 4; row++) {
        fl_step_row(&u, &t, row, gradient, 144);
    }
    end(name, "step", 4 * 144, weights, step == 1 ? 4 * 144 : 144 * step);
}

int main(void) {
    PRESCALER = 0;
    for (uint32_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        run_map(maps + i, 0);
    }
    for (uint32_t i = 0; i < sizeof depthwise_maps / sizeof *depthwise_maps; i++) {
        run_map(depthwise_maps + i, 1);
    }
    run_rows("784 to 32", 32, 784, 1);
    run_rows("784 to 32, one in five", 32, 784, 5);
    run_rows("32 to 16", 16, 32, 1);
    tiny = 1;
    for (uint32_t i = 0; i < sizeof tiny_maps / sizeof *tiny_maps; i++) {
        run_map(tiny_maps + i, 0);
    }
    run_rows("tiny 784 to 32", 32, 784, 1);
    tiny = 0;
    run_step_fully_connected("784, small steps", 0.01f, 0);
    run_step_fully_connected("784, small steps, 80 % zeros", 0.01f, 80);
    run_step_fully_connected("784, tiny steps", 0.0005f, 0);
    run_step_fully_connected("784, large steps", 4.0f, 0);
    run_step_row("144, small steps", 0.002f, 0, FL_WEIGHTS_INT8, 1);
    run_step_row("144, larger steps", 0.05f, 0, FL_WEIGHTS_INT8, 1);
    run_step_row("144, small steps, depthwise", 0.002f, 0, FL_WEIGHTS_INT8, 7);
    run_step_row("144, int16", 0.002f, 0, FL_WEIGHTS_INT16, 1);
    run_step_row("144, f32", 0.002f, 0, FL_WEIGHTS_F32, 1);
    run_step_row("144, momentum", 0.002f, 1, FL_WEIGHTS_INT8, 1);
    run_step_row("144, adam", 0.0002f, 2, FL_WEIGHTS_INT8, 1);
    printf("end\n");
    return 0;
}
