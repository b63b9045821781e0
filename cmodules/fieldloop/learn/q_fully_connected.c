// Fully connected with 16-bit deltas: dx[j] = sum_i delta[i] scale[i] w[i, j], four rows a pass.
#include <stddef.h>

#include "fieldloop/fl_backward_q.h"
#include "learn/q_runs.h"
#include "learn/q_words.h"

void fl_q_rows_fully_connected_input(const int32_t *delta, const uint16_t *rows, uint32_t count, const int8_t *w,
                                     const fl_row_scales_t *w_scale, int32_t scale_exponent, uint32_t r, uint32_t cols,
                                     int32_t *delta_in) {
    fl_q_runs_t gathered;
    fl_q_start_runs(&gathered, delta_in, (int32_t)cols, 0);
    for (uint32_t e = 0; e < count; e++) {
        const uint32_t i = rows ? rows[e] : e;
        if (delta[i] == 0) {
            continue;
        }
        const int32_t mantissa = fl_q_mantissa(w_scale->scale[i * w_scale->stride], scale_exponent);
        const int32_t t = fl_q_scale_word(delta[i], mantissa, r);
        if (t != 0) {
            fl_q_gather_run(&gathered, w + (size_t)i * cols, t);
        }
    }
    fl_q_finish_runs(&gathered);
}
