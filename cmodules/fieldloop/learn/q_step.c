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
    uint32_t random;    // fl_random of element 0 is fl_mix of this, of the next one of this + spread
    uint32_t spread;
    uint32_t max_step;  // in the weight's own steps
    // |sum| < small: its step is below 1, and (small_digits * (|sum| << up)) >> 32 of 2^-32
    uint32_t small, small_digits, up;
} q_row_t;

static q_factor_t factor_of(float factor, int32_t exponent) {
    const fl_q_number_t v = fl_q_apart(fl_q_bits(factor));
    return (q_factor_t){v.digits, -(v.exponent + exponent + 32)};
}

// |step| in 2^-32, truncated; what does not fit is UINT64_MAX.
static uint64_t fixed_step(q_factor_t f, uint32_t magnitude) {
    const uint64_t product = (uint64_t)f.digits * magnitude;
    if ((uint32_t)f.drop - 1 < 31) {  // nearly always: spares a shift of 64 bits
        const uint32_t high = (uint32_t)(product >> 32);
        return (uint64_t)(high >> f.drop) << 32 | ((uint32_t)product >> f.drop | high << (32 - f.drop));
    }
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
    q_row_t r = {
        .factor = factor_of(fl_weight_factor(u, row), t->low ? exponent + 8 : exponent),
        .w = t->w + first,
        .low = t->low ? t->low + first : NULL,
        .random = u->key + first * FL_GOLDEN,
        .spread = t->step * FL_GOLDEN,
        .max_step = t->low ? u->max_step << 8 : u->max_step,
    };
    const int32_t drop = r.factor.drop;
    if (drop > -8 && drop <= 32) {  // else no sum is small
        r.up = drop < 24 ? (uint32_t)(24 - drop) : 0;
        r.small = drop < 24 ? UINT32_C(1) << (8 + drop) : UINT32_MAX;
        r.small_digits = r.factor.digits << (drop < 24 ? 8 : 32 - drop);
    }
    return r;
}

// The step is 0, as nearly always: found with one product of 32 bits.
static inline int is_still(const q_row_t *r, int32_t sum, uint32_t bits) {
    const uint32_t m = fl_q_magnitude(sum);
    return m < r->small && (uint32_t)(((uint64_t)r->small_digits * (m << r->up)) >> 32) <= bits;
}

// Moves the weight at `at` of the row against the sign of `sum`. Returns 1 where it moved less than asked for.
static __attribute__((noinline)) uint32_t take(const q_row_t *r, uint32_t at, int32_t sum, uint32_t bits) {
    const uint64_t fixed = fixed_step(r->factor, fl_q_magnitude(sum));
    const uint32_t whole = (uint32_t)(fixed >> 32);
    const uint32_t chance = (uint32_t)fixed;
    const uint32_t more = bits < chance;
    if ((whole | more) == 0) {
        return 0;
    }
    uint32_t cut = 0;
    int32_t step = (int32_t)(whole + more);
    if (whole >= r->max_step) {
        cut = whole > r->max_step || chance > 0;
        step = (int32_t)r->max_step;
    }
    step = sum < 0 ? -step : step;
    return cut | (r->low ? fl_move_int16(r->w + at, r->low + at, step) : fl_move_int8(r->w + at, step));
}

void fl_q_step_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const int32_t *sums, int32_t exponent,
                   uint32_t n) {
    const q_row_t r = row_of(u, t, row, exponent);
    uint32_t random = r.random;
    uint32_t clipped = 0;
    for (uint32_t j = 0; j < n; j++, random += r.spread) {
        if (sums[j] == 0) {
            continue;
        }
        const uint32_t bits = fl_mix(random);
        if (!is_still(&r, sums[j], bits)) {
            clipped += take(&r, j * t->step, sums[j], bits);
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
        const uint32_t bits = fl_mix(random);
        if (bits <= last && !is_still(&r, delta * centred, bits)) {
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
