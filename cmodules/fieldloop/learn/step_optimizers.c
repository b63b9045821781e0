// Steps with a memory: SGD with momentum, and Adam (Kingma and Ba 2015). Both in the order of operations that the header
// tells, so that every machine makes the same bytes. And the bias, whose step is its weight's in other units.
#include "learn/rounding.h"

#define CHUNK 16
#define ADAM_EPSILON 1e-7f
#define ADAM_LIMIT 1e15f  // its square is still far from the end of f32

static float momentum(const fl_step_rule_t *u, float g, float *m) {
    *m = u->beta1 * *m + g;
    return *m;
}

static float adam(const fl_step_rule_t *u, float g, float *m1, float *m2) {
    *m1 = u->beta1 * *m1 + (1.0f - u->beta1) * g;
    *m2 = u->beta2 * *m2 + ((1.0f - u->beta2) * g) * g;
    float deviation = fl_square_root(*m2 / (1.0f - u->decay2));
    return (*m1 / (1.0f - u->decay1)) / (deviation + ADAM_EPSILON);
}

static float limited(float g) {
    return g > ADAM_LIMIT ? ADAM_LIMIT : g < -ADAM_LIMIT ? -ADAM_LIMIT : g;
}

void fl_step_row_by_moments(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const float *gradient,
                            uint32_t n) {
    uint32_t at = row * t->row_stride;
    float factor = t->moment2 ? u->lr / fl_row_scale(u, row) : fl_weight_factor(u, row);
    float steps[CHUNK];
    for (uint32_t from = 0; from < n; from += CHUNK) {
        uint32_t count = n - from < CHUNK ? n - from : CHUNK;
        for (uint32_t j = 0; j < count; j++) {
            uint32_t place = at + j * t->step;
            steps[j] = t->moment2 ? adam(u, limited(u->x_scale * gradient[from + j]), t->moment1 + place, t->moment2 + place)
                                  : momentum(u, gradient[from + j], t->moment1 + place);
        }
        fl_move_weights(u, t, at, factor, steps, count);
        at += CHUNK * t->step;
    }
}

void fl_step_bias(const fl_step_rule_t *u, uint32_t row, float sum, uint32_t index, int32_t *b, float *m1, float *m2) {
    if (sum == 0.0f) {
        return;
    }
    float s = m2 ? adam(u, limited(sum), m1, m2) : m1 ? momentum(u, sum, m1) : sum;
    int64_t v = (int64_t)*b - fl_round_stochastic(fl_bias_factor(u, row) * s, fl_random(u->key, index));
    *b = (int32_t)(v > FL_BIAS_LIMIT ? FL_BIAS_LIMIT : v < -FL_BIAS_LIMIT ? -FL_BIAS_LIMIT : v);
}
