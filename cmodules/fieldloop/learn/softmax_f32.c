// The output error: softmax with cross-entropy on int8 logits, in f32, with our own exponential (kernels/exp.h).
#include "fieldloop/fl_backward.h"
#include "kernels/exp.h"

float fl_exp_negative(float x) {
    if (x != x) {
        return x;
    }
    if (x < FL_EXP_LOWEST) {
        return 0.0f;
    }
    return x >= 0.0f ? 1.0f : fl_exp_between(x);
}

float fl_output_error(const int8_t *q, uint32_t classes, float scale, int32_t zero_point, uint32_t label, float *delta,
                      uint32_t *predicted) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < classes; i++) {
        if (q[i] > q[best]) {
            best = i;
        }
    }
    *predicted = best;

    float highest = (float)((int32_t)q[best] - zero_point) * scale;
    float sum = 0.0f;
    for (uint32_t i = 0; i < classes; i++) {
        float z = (float)((int32_t)q[i] - zero_point) * scale;
        delta[i] = fl_exp_negative(z - highest);
        sum = sum + delta[i];
    }
    for (uint32_t i = 0; i < classes; i++) {
        delta[i] = delta[i] / sum;
    }
    float missing = 1.0f - delta[label];
    delta[label] = delta[label] - 1.0f;
    return 2.0f * missing;
}
