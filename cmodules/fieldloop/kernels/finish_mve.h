// What the weighted _mve kernels have in common before and after their loops.
#ifndef FIELDLOOP_KERNELS_FINISH_MVE_H
#define FIELDLOOP_KERNELS_FINISH_MVE_H

#include "fieldloop/fl_kernels.h"

// True where each of `channels` factors shifts right, by 1 at least.
int32_t fl_all_right_mve(const fl_quant_t *q, int32_t channels);

// folded[i] = b[i] - x_zero * the sum of row i of w [channels, k]: what images bring, worked out for layers in training.
void fl_fold_mve(const fl_quant_t *q, const int8_t *w, const int32_t *b, int32_t channels, int32_t k, int32_t *folded);

// From all of int8, where the kernels leave it, to act_min..act_max.
void fl_clamp_map_mve(const fl_quant_t *q, int32_t n, int8_t *out);

#endif
