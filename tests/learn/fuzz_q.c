// The kernels of 16-bit deltas on random shapes, for a build with AddressSanitizer and UBSan: every array ends where its
// size says, words are as large as they can be, and nothing may be read beside it or overflow.
//   fuzz_q ROUNDS    prints the rounds, and a checksum over all that was written
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_backward_q.h"
#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_random.h"

static uint32_t drawn, checksum;

static int32_t in(int32_t low, int32_t high) {
    return low + (int32_t)(fl_mix(++drawn) % (uint32_t)(high - low + 1));
}

static void *filled(size_t bytes) {
    uint8_t *at = malloc(bytes ? bytes : 1);
    fl_random_fill(at, bytes, ++drawn);
    return at;
}

static int32_t *zeros(uint32_t n) {
    return calloc(n ? n : 1, sizeof(int32_t));
}

static int32_t word(void) {
    const int32_t kind = in(0, 3);
    return kind == 0 ? 0 : kind == 1 ? (in(0, 1) ? 32767 : -32767) : in(-32767, 32767) >> in(0, 14);
}

static void account(void *at, size_t bytes) {
    checksum = fl_crc32(checksum, at, bytes);
    free(at);
}

static void convolve(int is_depthwise) {
    fl_conv_params_t p = {.kernel_h = (uint16_t)in(1, 4), .kernel_w = (uint16_t)in(1, 4), .stride_h = (uint16_t)in(1, 3),
                          .stride_w = (uint16_t)in(1, 3), .dilation_h = (uint16_t)in(1, 2), .dilation_w = (uint16_t)in(1, 2),
                          .depth_multiplier = (uint16_t)(is_depthwise ? in(1, 3) : 1)};
    const int32_t span_h = (p.kernel_h - 1) * p.dilation_h + 1, span_w = (p.kernel_w - 1) * p.dilation_w + 1;
    p.pad_top = (int16_t)in(0, span_h);
    p.pad_left = (int16_t)in(0, span_w);
    fl_map_dims_t d = {.in_h = in(span_h, span_h + 6), .in_w = in(span_w, span_w + 6), .in_c = in(1, 9)};
    d.out_h = (d.in_h + p.pad_top + in(0, span_h + 1) - span_h) / p.stride_h + 1;
    d.out_w = (d.in_w + p.pad_left + in(0, span_w + 1) - span_w) / p.stride_w + 1;
    d.out_c = is_depthwise ? d.in_c * p.depth_multiplier : in(1, 4);
    const uint32_t map = (uint32_t)(d.in_h * d.in_w * d.in_c);
    const uint32_t taps = (uint32_t)(p.kernel_h * p.kernel_w);
    const uint32_t row_n = is_depthwise ? taps : taps * (uint32_t)d.in_c;
    const uint32_t w_n = is_depthwise ? taps * (uint32_t)d.out_c : row_n;
    const uint32_t count = (uint32_t)in(0, 2000), c = (uint32_t)in(0, d.out_c - 1);
    fl_spot_t *spots = malloc(count ? count * sizeof *spots : 1);
    uint32_t l1 = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t q = word();
        l1 += (uint32_t)abs(q);
        spots[i] = (fl_spot_t){(uint16_t)in(0, d.out_h - 1), (uint16_t)in(0, d.out_w - 1), {.q = q}};
    }
    int8_t *x = filled(map), *w = filled(w_n);
    int32_t *delta_in = zeros(map), *row = zeros(row_n);
    const int32_t mantissa = in(0, 1) ? 1 << 15 : in(1, 1 << 15), zero = in(-128, 127);
    const uint32_t r = fl_q_headroom(l1, count, 128), r2 = fl_q_headroom(l1, count, 255);
    if (is_depthwise) {
        fl_q_spots_depthwise_conv2d_input(&p, &d, spots, count, c, w, mantissa, r, delta_in);
        fl_q_spots_depthwise_conv2d_row(&p, &d, spots, count, c, x, zero, r2, row);
    } else {
        fl_q_spots_conv2d_input(&p, &d, spots, count, w, mantissa, r, delta_in);
        fl_q_spots_conv2d_row(&p, &d, spots, count, x, zero, r2, row);
    }
    checksum += fl_q_normalise(delta_in, map);
    int32_t exponent = in(-60, 60);
    int32_t *other = zeros(map);
    for (uint32_t i = 0; i < map; i++) {
        other[i] = word();
    }
    fl_q_add(delta_in, &exponent, other, in(-60, 60), map);
    free(other);
    free(spots);
    free(x);
    account(w, w_n);
    account(delta_in, map * sizeof *delta_in);
    account(row, row_n * sizeof *row);
}

static float real(int32_t least, int32_t most) {  // of any size
    float v = 1.0f + (float)in(0, 65535) / 65536.0f;
    for (int32_t e = in(least, most); e != 0; e += e < 0 ? 1 : -1) {
        v = e < 0 ? v * 0.5f : v * 2.0f;
    }
    return v;
}

static void learn(void) {
    const uint32_t rows = (uint32_t)in(1, 20), cols = (uint32_t)in(1, 50), n = rows * cols;
    float *scale = malloc(rows * sizeof *scale);
    for (uint32_t i = 0; i < rows; i++) {
        scale[i] = real(-40, 10);
    }
    const fl_row_scales_t scales = {scale, (uint32_t)in(0, 1)};
    int32_t *delta = zeros(rows), *delta_in = zeros(cols), *sums = zeros(cols);
    for (uint32_t i = 0; i < rows; i++) {
        delta[i] = word();
    }
    for (uint32_t j = 0; j < cols; j++) {
        sums[j] = in(0, 9) ? in(-0x3fffffff, 0x3fffffff) >> in(0, 30) : in(0, 1) ? INT32_MAX : -INT32_MAX;
    }
    int8_t *w = filled(n), *low = filled(n), *x = filled(cols);
    const uint32_t r = fl_q_headroom(fl_q_l1(delta, rows), rows, 128);
    const int32_t e = fl_q_scale_exponent(&scales, rows);
    fl_q_rows_fully_connected_input(delta, NULL, rows, w, &scales, e, r, cols, delta_in);
    uint64_t clipped = 0;
    const fl_step_rule_t u = {.lr = real(-60, 60), .x_scale = real(-20, 20), .x_zero = in(-128, 127), .w_scale = scales,
                              .key = ++drawn, .max_step = (uint32_t)in(1, 254), .clipped = &clipped};
    const fl_trained_t t = {.w = w, .low = in(0, 1) ? low : NULL, .row_stride = cols, .step = 1};
    const uint32_t row = (uint32_t)in(0, (int32_t)rows - 1);
    fl_q_step_row(&u, &t, row, sums, in(-80, 60), cols);
    fl_q_step_fully_connected_row(&u, &t, row, delta[row], in(-80, 60), x, cols);
    int32_t b = sums[0];
    fl_q_step_bias(&u, row, sums[cols - 1], in(-80, 60), n + row, &b);
    float v = fl_q_real(fl_q_l1(delta, rows), in(-200, 200));
    checksum = fl_crc32(checksum, &v, sizeof v) + (uint32_t)b + (uint32_t)clipped;
    fl_word_t *output = malloc(rows * sizeof *output);
    for (uint32_t i = 0; i < rows; i++) {
        output[i].f = in(0, 1) ? real(-40, 0) : -real(-20, -1);
    }
    fl_q_from_f32(output, rows);
    account(output, rows * sizeof *output);
    account(delta_in, cols * sizeof *delta_in);
    account(w, n);
    account(low, n);
    free(x);
    free(sums);
    free(delta);
    free(scale);
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 0;
    for (int i = 0; i < rounds; i++) {
        convolve(0);
        convolve(1);
        learn();
    }
    printf("%d %08lx\n", rounds, (unsigned long)checksum);
    return 0;
}
