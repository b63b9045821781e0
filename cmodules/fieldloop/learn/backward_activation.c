// Folded activations: no weights, only a way back.
#include "fieldloop/fl_backward.h"

void fl_backward_activation(const int8_t *q, uint32_t n, int32_t act_min, int32_t act_max, float *delta) {
    for (uint32_t i = 0; i < n; i++) {
        if (q[i] <= act_min || q[i] >= act_max) {
            delta[i] = 0.0f;
        }
    }
}
