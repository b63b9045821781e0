// Writing what was learned: a row of weights, one step. What the step is, the optimizer says; how it is stored, the kind of
// weight: int8 in place, int8 and 1/256ths, or an f32 master copy.
#include "learn/rounding.h"

static uint32_t move_int8(int8_t *w, int32_t steps) {
    int32_t v = *w - steps;
    int32_t kept = v > FL_WEIGHT_LIMIT ? FL_WEIGHT_LIMIT : v < -FL_WEIGHT_LIMIT ? -FL_WEIGHT_LIMIT : v;
    *w = (int8_t)kept;
    return kept != v;
}

static uint32_t move_int16(int8_t *w, int8_t *low, int32_t steps) {
    const int32_t limit = FL_WEIGHT_LIMIT * 256;
    int32_t v = *w * 256 + *low - steps;
    int32_t kept = v > limit ? limit : v < -limit ? -limit : v;
    // floor((kept + 128) / 256), without the shift of a negative number
    int32_t whole = (kept + 128 + 256 * 256) / 256 - 256;
    *w = (int8_t)whole;
    *low = (int8_t)(kept - 256 * whole);
    return kept != v;
}

static uint32_t move_master(int8_t *w, float *master, float s) {
    const float limit = FL_WEIGHT_LIMIT;
    float v = *master - s;
    float kept = v > limit ? limit : v < -limit ? -limit : v;
    *master = kept;
    *w = (int8_t)(kept < 0.0f ? -(int32_t)(0.5f - kept) : (int32_t)(kept + 0.5f));
    return kept != v;
}

uint32_t fl_move_weight(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t at, float s) {
    const float most = (float)u->max_step;
    uint32_t cut = 0;
    if (!(s <= most && s >= -most)) {
        s = s < 0.0f ? -most : most;
        cut = 1;
    }
    if (t->master) {
        return cut | move_master(t->w + at, t->master + at, s);
    }
    uint32_t bits = fl_random(u->key, at);
    int32_t steps = fl_round_stochastic(t->low ? s * 256.0f : s, bits);
    if (steps == 0) {
        return 0;
    }
    return cut | (t->low ? move_int16(t->w + at, t->low + at, steps) : move_int8(t->w + at, steps));
}

void fl_step_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const float *gradient, uint32_t n) {
    uint32_t at = row * t->row_stride;
    if (t->moment1) {
        fl_step_row_by_moments(u, t, row, gradient, n);
        return;
    }
    float factor = fl_weight_factor(u, row);
    uint32_t clipped = 0;
    for (uint32_t j = 0; j < n; j++, at += t->step) {
        if (gradient[j] != 0.0f) {
            clipped += fl_move_weight(u, t, at, factor * gradient[j]);
        }
    }
    *u->clipped += clipped;
}

void fl_step_fully_connected_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, float delta,
                                 const int8_t *x, uint32_t cols) {
    float factor = fl_weight_factor(u, row) * delta;
    uint32_t at = row * t->row_stride;
    uint32_t clipped = 0;
    for (uint32_t j = 0; j < cols; j++, at += t->step) {
        int32_t centred = x[j] - u->x_zero;
        if (centred != 0) {  // no input, no step: most inputs of a layer behind a ReLU
            clipped += fl_move_weight(u, t, at, factor * (float)centred);
        }
    }
    *u->clipped += clipped;
}
