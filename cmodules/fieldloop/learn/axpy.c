// The plain form of the sums: what the others are compared with, and what they leave to it.
#include "learn/axpy.h"

void fl_axpy_plain(const fl_block_t *block, float *out, const int8_t *in, float s) {
    for (int32_t rows = block->rows; rows > 0; rows--) {
        for (int32_t j = 0; j < block->n; j++) {
            out[j] = out[j] + s * (float)(in[j] - block->zero);
        }
        out += block->out_step;
        in += block->in_step;
    }
}

void fl_axpy_four_plain(const fl_block_t *block, float *out, const int8_t *const in[4], const float s[4]) {
    for (int32_t y = 0; y < block->rows; y++) {
        float *to = out + y * block->out_step;
        for (int32_t j = 0; j < block->n; j++) {
            for (uint32_t i = 0; i < 4; i++) {
                to[j] = to[j] + s[i] * (float)(in[i][y * block->in_step + j] - block->zero);
            }
        }
    }
}

void fl_axpy_to_four_plain(float *const out[4], const int8_t *in, const float s[4], uint32_t n) {
    const fl_block_t run = {1, (int32_t)n, 0, 0, 0};
    for (uint32_t i = 0; i < 4; i++) {
        fl_axpy_plain(&run, out[i], in, s[i]);
    }
}

#if FL_AXPY == 0

void fl_axpy(const fl_block_t *block, float *out, const int8_t *in, float s) {
    fl_axpy_plain(block, out, in, s);
}

void fl_axpy_four(const fl_block_t *block, float *out, const int8_t *const in[4], const float s[4]) {
    fl_axpy_four_plain(block, out, in, s);
}

void fl_axpy_to_four(float *const out[4], const int8_t *in, const float s[4], uint32_t n) {
    fl_axpy_to_four_plain(out, in, s, n);
}

#endif

#if FL_AXPY != 1

void fl_axpy_taps_of_8(const fl_taps_of_8_t *block, float *out, const float *w, float s) {
    for (int32_t y = 0; y < block->rows; y++) {
        for (int32_t t = 0; t < block->taps; t++) {
            float *to = out + y * block->out_row + t * block->out_step;
            for (int32_t j = 0; j < 8; j++) {
                to[j] = to[j] + s * w[y * block->w_row + t * 8 + j];
            }
        }
    }
}

#endif
