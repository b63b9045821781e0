// What the backward pass of f32 spends its time on: a f32 times a run of int8, added to a run of f32. Every product and every
// sum is rounded on its own, in the order given, in plain C and in assembler alike.
#ifndef FIELDLOOP_LEARN_AXPY_H
#define FIELDLOOP_LEARN_AXPY_H

#include <stdint.h>

// 2: Armv8.1-M's vectors of f32, where the build says that the processor has them (FL_MVE_F32): the compiler is not to know
// of them, because it would use them where they round otherwise; 1: an FPU and the DSP instructions; 0: plain C.
#if defined(__ARM_FEATURE_MVE) && defined(FL_MVE_F32)
#define FL_AXPY 2
#elif defined(__ARM_FP) && (__ARM_FP & 4) && defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && \
    __ARM_ARCH_PROFILE == 'M'
#define FL_AXPY 1
#else
#define FL_AXPY 0
#endif

// A block of rows: `n` elements each, `rows` of them, so many elements apart.
typedef struct {
    int32_t rows, n;
    int32_t out_step, in_step;
    int32_t zero;
} fl_block_t;

// out[j] += s * (in[j] - zero), row by row.
void fl_axpy(const fl_block_t *block, float *out, const int8_t *in, float s);

// Four blocks into one: out[j] += s[0] * (in[0][j] - zero), then s[1] * (in[1][j] - zero) ..., row by row.
void fl_axpy_four(const fl_block_t *block, float *out, const int8_t *const in[4], const float s[4]);

// One run into four that do not overlap: out[i][j] += s[i] * in[j], j < n.
void fl_axpy_to_four(float *const out[4], const int8_t *in, const float s[4], uint32_t n);

// Weights that are f32 already, eight channels of each tap: out[j] += s * w[j] for j < 8, then the next tap, `taps` of them
// `out_step` apart; `rows` of those, and from one to the next `out_row` and, of w, `w_row` elements.
typedef struct {
    int32_t rows, taps;
    int32_t out_step, out_row, w_row;
} fl_taps_of_8_t;

void fl_axpy_taps_of_8(const fl_taps_of_8_t *block, float *out, const float *w, float s);

// The plain form, which the vectors leave very small numbers to.
void fl_axpy_plain(const fl_block_t *block, float *out, const int8_t *in, float s);
void fl_axpy_four_plain(const fl_block_t *block, float *out, const int8_t *const in[4], const float s[4]);
void fl_axpy_to_four_plain(float *const out[4], const int8_t *in, const float s[4], uint32_t n);

#endif
