// Steps from 16-bit deltas. |step| = digits * |sum| * 2^-(32 + drop), a product of at most 56 bits. In 32.32 fixed point its
// upper word is the whole part, its lower word the chance of one more, to be compared with 32 random bits. Most steps are
// far below 1 and end there.
#include "fieldloop/fl_backward_q.h"
#include "learn/q_words.h"
#include "learn/rounding.h"

typedef struct {
    uint32_t digits;
    int32_t drop;  // places from the product down to units of 2^-32
} q_factor_t;

// What does not change along a row.
typedef struct {
    q_factor_t factor;
    const fl_trained_t *t;
    uint32_t first;   // index of element 0
    uint32_t random;  // fl_random of element 0 is fl_bits_at of this, of the next one of this + spread
    uint32_t spread;
    uint32_t max_step;  // in the weight's own steps
} q_row_t;

static q_factor_t factor_of(float factor, int32_t exponent) {
    const fl_q_number_t v = fl_q_apart(fl_q_bits(factor));
    return (q_factor_t){v.digits, -(v.exponent + exponent + 32)};
}

// |step| in 2^-32, truncated; what does not fit is UINT64_MAX.
static uint64_t fixed_step(q_factor_t f, uint32_t magnitude) {
    const uint64_t product = (uint64_t)f.digits * magnitude;
    if (f.drop >= 0) {
        return f.drop < 64 ? product >> f.drop : 0;
    }
    if (product == 0) {
        return 0;
    }
    return f.drop > -64 && product <= UINT64_MAX >> -f.drop ? product << -f.drop : UINT64_MAX;
}

static q_row_t row_of(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, int32_t exponent) {
    const uint32_t first = row * t->row_stride;
    return (q_row_t){
        .factor = factor_of(fl_weight_factor(u, row), t->low ? exponent + 8 : exponent),
        .t = t,
        .first = first,
        .random = u->key + first * FL_GOLDEN,
        .spread = t->step * FL_GOLDEN,
        .max_step = t->low ? u->max_step << 8 : u->max_step,
    };
}

// Moves element j against the sign of its sum. Returns 1 where it moved less than asked for.
static uint32_t move(const q_row_t *r, uint32_t j, int32_t sum, uint64_t fixed, uint32_t bits) {
    const uint32_t index = r->first + j * r->t->step;
    int8_t *w = r->t->w + index;
    int8_t *low = r->t->low ? r->t->low + index : NULL;
    uint32_t cut = fixed > (uint64_t)r->max_step << 32;
    const int32_t step = (int32_t)(cut ? r->max_step : (uint32_t)(fixed >> 32) + (bits < (uint32_t)fixed));
    if (step == 0) {
        return 0;
    }
    const int32_t bound = low ? FL_WEIGHT_LIMIT * 256 : FL_WEIGHT_LIMIT;
    int32_t value = low ? *w * 256 + *low : *w;
    value = sum < 0 ? value + step : value - step;
    if (value > bound || value < -bound) {
        value = value < 0 ? -bound : bound;
        cut = 1;
    }
    if (low) {
        const int32_t high = (value + 128 + 65536) / 256 - 256;  // rounds down: the dividend is positive
        *low = (int8_t)(value - high * 256);
        value = high;
    }
    *w = (int8_t)value;
    return cut;
}

void fl_q_step_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const int32_t *sums, int32_t exponent,
                   uint32_t n) {
    const q_row_t r = row_of(u, t, row, exponent);
    uint32_t random = r.random;
    uint32_t clipped = 0;
    for (uint32_t j = 0; j < n; j++, random += r.spread) {
        const int32_t sum = sums[j];
        if (sum == 0) {
            continue;
        }
        const uint64_t fixed = fixed_step(r.factor, fl_q_magnitude(sum));
        const uint32_t bits = fl_bits_at(random);
        if (fixed > bits) {
            clipped += move(&r, j, sum, fixed, bits);
        }
    }
    *u->clipped += clipped;
}

void fl_q_step_fully_connected_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, int32_t delta,
                                   int32_t exponent, const int8_t *x, uint32_t cols) {
    const q_row_t r = row_of(u, t, row, exponent);
    // the largest step that an input can ask for: beyond it no bits need a closer look
    const int32_t zero = u->x_zero;
    const uint32_t widest = (uint32_t)(zero < 0 ? 127 - zero : zero + 128);
    const uint64_t most = fixed_step(r.factor, fl_q_magnitude(delta) * widest);
    if (most == 0) {
        return;
    }
    const uint32_t last = most >> 32 ? UINT32_MAX : (uint32_t)most - 1;
    uint32_t random = r.random;
    uint32_t clipped = 0;
    for (uint32_t j = 0; j < cols; j++, random += r.spread) {
        const int32_t centred = x[j] - zero;
        if (centred == 0) {
            continue;
        }
        const uint32_t bits = fl_bits_at(random);
        if (bits > last) {
            continue;
        }
        const int32_t sum = delta * centred;
        const uint64_t fixed = fixed_step(r.factor, fl_q_magnitude(sum));
        if (fixed > bits) {
            clipped += move(&r, j, sum, fixed, bits);
        }
    }
    *u->clipped += clipped;
}

void fl_q_step_bias(const fl_step_rule_t *u, uint32_t row, int32_t sum, int32_t exponent, uint32_t index, int32_t *b) {
    if (sum == 0) {
        return;
    }
    const uint64_t fixed = fixed_step(factor_of(fl_bias_factor(u, row), exponent), fl_q_magnitude(sum));
    const int64_t step = (int64_t)(fixed >> 32) + (fl_random(u->key, index) < (uint32_t)fixed);
    int64_t v = sum < 0 ? *b + step : *b - step;
    if (v > FL_BIAS_LIMIT) {
        v = FL_BIAS_LIMIT;
    } else if (v < -FL_BIAS_LIMIT) {
        v = -FL_BIAS_LIMIT;
    }
    *b = (int32_t)v;
}
