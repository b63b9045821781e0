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
    int8_t *w, *low;    // of element 0
    uint32_t random;    // fl_random of element 0 is fl_bits_at of this, of the next one of this + spread
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
        .w = t->w + first,
        .low = t->low ? t->low + first : NULL,
        .random = u->key + first * FL_GOLDEN,
        .spread = t->step * FL_GOLDEN,
        .max_step = t->low ? u->max_step << 8 : u->max_step,
    };
}

typedef struct {
    uint32_t whole, chance;
} q_step_t;

static inline q_step_t step_of(q_factor_t f, uint32_t magnitude) {
    const uint64_t product = (uint64_t)f.digits * magnitude;
    const uint32_t high = (uint32_t)(product >> 32);
    if (f.drop - 1u < 31u) {  // nearly always: no shift of 64 bits by a variable
        return (q_step_t){high >> f.drop, (uint32_t)product >> f.drop | high << (32 - f.drop)};
    }
    const uint64_t fixed = fixed_step(f, magnitude);
    return (q_step_t){(uint32_t)(fixed >> 32), (uint32_t)fixed};
}

// Moves the weight at `at` of the row against the sign of `sum`. Returns 1 where it moved less than asked for.
static inline uint32_t take(const q_row_t *r, uint32_t at, int32_t sum, uint32_t bits) {
    const q_step_t s = step_of(r->factor, fl_q_magnitude(sum));
    if (s.whole == 0 && bits >= s.chance) {
        return 0;
    }
    uint32_t cut = 0;
    int32_t step = (int32_t)(s.whole + (bits < s.chance));
    if (s.whole >= r->max_step) {
        cut = s.whole > r->max_step || s.chance > 0;
        step = (int32_t)r->max_step;
    }
    step = sum < 0 ? step : -step;
    const int32_t bound = r->low ? FL_WEIGHT_LIMIT * 256 : FL_WEIGHT_LIMIT;
    int32_t value = r->low ? r->w[at] * 256 + r->low[at] + step : r->w[at] + step;
    if (value > bound || value < -bound) {
        value = value < 0 ? -bound : bound;
        cut = 1;
    }
    if (r->low) {
        const uint32_t above = (uint32_t)(value + 128 + 65536);  // above 0, so that the shift rounds down
        r->w[at] = (int8_t)((int32_t)(above >> 8) - 256);
        r->low[at] = (int8_t)((int32_t)(above & 255) - 128);
    } else {
        r->w[at] = (int8_t)value;
    }
    return cut;
}

void fl_q_step_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const int32_t *sums, int32_t exponent,
                   uint32_t n) {
    const q_row_t r = row_of(u, t, row, exponent);
    const uint32_t step = t->step;
    uint32_t random = r.random;
    uint32_t clipped = 0;
    for (uint32_t j = 0, at = 0; j < n; j++, at += step, random += r.spread) {
        if (sums[j] != 0) {
            clipped += take(&r, at, sums[j], fl_bits_at(random));
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
        if (bits <= last) {
            clipped += take(&r, j, delta * centred, bits);
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
