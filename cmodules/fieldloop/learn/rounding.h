// What turns a real step into a whole one: random bits by index, and the moves of the three kinds of weight.
#ifndef FIELDLOOP_LEARN_ROUNDING_H
#define FIELDLOOP_LEARN_ROUNDING_H

#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_random.h"

#define FL_GOLDEN 0x9e3779b9u  // 2^32 / golden ratio: spreads neighbouring indices
#define FL_WEIGHT_LIMIT 127
// An int32 accumulator has room for a bias of 2^30 and 32 768 products of 255 * 128 on top.
#define FL_BIAS_LIMIT (1 << 30)

// fl_random, to be unrolled into loops that count the index up: fl_bits_at(key + index * FL_GOLDEN).
static inline uint32_t fl_bits_at(uint32_t place) {
    return fl_mix(place);
}

static inline float fl_row_scale(const fl_step_rule_t *u, uint32_t row) {
    return u->w_scale.scale[row * u->w_scale.stride];
}

// Real step of a weight is lr * dLoss/dw, dLoss/dw = x_scale * gradient; divided by the weight's scale.
static inline float fl_weight_factor(const fl_step_rule_t *u, uint32_t row) {
    return (u->lr * u->x_scale) / fl_row_scale(u, row);
}

static inline float fl_bias_factor(const fl_step_rule_t *u, uint32_t row) {
    return u->lr / (u->x_scale * fl_row_scale(u, row));
}

// Moves one trained weight by -s. Returns 1 where max_step or the end of int8 held it back. A step that rounds to 0 moves
// nothing, whatever the weight.
uint32_t fl_move_weight(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t at, float s);

// fl_step_row for a layer with moments.
void fl_step_row_by_moments(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const float *gradient,
                            uint32_t n);

#endif
