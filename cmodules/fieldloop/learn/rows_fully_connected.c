// Fully connected, back to the input: z[i] = sum_j w[i, j] x[j] + b[i], so dx[j] = sum_i delta[i] w[i, j].
#include "fieldloop/fl_backward.h"
#include "learn/axpy.h"

// Four rows at a time: each sum is loaded and stored once for all of them.
void fl_rows_fully_connected_input(const float *delta, const uint16_t *rows, uint32_t count, const int8_t *w,
                                   const fl_row_scales_t *w_scale, uint32_t cols, float *delta_in) {
    const fl_block_t row = {1, (int32_t)cols, 0, 0, 0};
    const int8_t *in[4];
    float scaled[4];
    uint32_t gathered = 0;
    for (uint32_t e = 0; e < count; e++) {
        uint32_t i = rows ? rows[e] : e;
        if (delta[i] == 0.0f) {
            continue;
        }
        in[gathered] = w + (size_t)i * cols;
        scaled[gathered] = delta[i] * w_scale->scale[i * w_scale->stride];
        if (++gathered == 4) {
            fl_axpy_four(&row, delta_in, in, scaled);
            gathered = 0;
        }
    }
    for (uint32_t i = 0; i < gathered; i++) {
        fl_axpy(&row, delta_in, in[i], scaled[i]);
    }
}
