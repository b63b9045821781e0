// What the backward pass of f32 spends its time on: a f32 times a run of int8, added to a run of f32. Every product and every
// sum is rounded on its own, in the order given, in plain C and in assembler alike.
#ifndef FIELDLOOP_LEARN_AXPY_H
#define FIELDLOOP_LEARN_AXPY_H

#include <stdint.h>

// A block of rows: `n` elements each, `rows` of them, so many elements apart.
typedef struct {
    int32_t rows, n;
    int32_t out_step, in_step;
    int32_t zero;
} fl_block_t;

// out[j] += s * (in[j] - zero), row by row.
void fl_axpy(const fl_block_t *block, float *out, const int8_t *in, float s);

// Four rows into one run: out[j] += s[0] * in[0][j], then s[1] * in[1][j] ... The pointers of `in` are moved by n.
void fl_axpy_four_rows(float *out, const int8_t *in[4], const float s[4], uint32_t n);

// One row into four runs that do not overlap: out[i][j] += s[i] * in[j]. The pointers of `out` are moved by n.
void fl_axpy_four_runs(float *out[4], const int8_t *in, const float s[4], uint32_t n);

#endif
