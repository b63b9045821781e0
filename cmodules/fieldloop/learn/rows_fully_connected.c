// Fully connected, back to the input: z[i] = sum_j w[i, j] x[j] + b[i], so dx[j] = sum_i delta[i] w[i, j].
#include "fieldloop/fl_backward.h"

void fl_rows_fully_connected_input(const float *delta, const uint16_t *rows, uint32_t count, const int8_t *w,
                                   const fl_row_scales_t *w_scale, uint32_t cols, float *delta_in) {
    for (uint32_t e = 0; e < count; e++) {
        uint32_t i = rows ? rows[e] : e;
        if (delta[i] == 0.0f) {
            continue;
        }
        float scaled = delta[i] * w_scale->scale[i * w_scale->stride];
        const int8_t *w_row = w + (size_t)i * cols;
        for (uint32_t j = 0; j < cols; j++) {
            delta_in[j] = delta_in[j] + scaled * (float)w_row[j];
        }
    }
}
