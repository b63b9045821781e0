// Writing what was learned: one step of a row of weights from its gradient, or, in a fully connected layer, from its delta and
// the input.
#include "learn/rounding.h"

#define CHUNK 16

void fl_step_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const float *gradient, uint32_t n) {
    if (t->moment1) {
        fl_step_row_by_moments(u, t, row, gradient, n);
    } else {
        fl_move_weights(u, t, row * t->row_stride, fl_weight_factor(u, row), gradient, n);
    }
}

// A row of int8 weights, stepped by -(factor * (x - zero)).
typedef struct {
    const int8_t *x;
    int8_t *w;
    float magnitude;  // of the factor
    float chance;     // the same in units of 2^-32
    float most;       // max_step
    int32_t zero;
    uint32_t sign;  // of the factor; 1: negative
    uint32_t clipped;
} int8_row_t;

// Out of line, to leave the loop its registers: where steps are small, few bits come here.
static __attribute__((noinline)) void try_step(int8_row_t *r, uint32_t bits, const int8_t *x) {
    int32_t centred = *x - r->zero;
    float distance = (float)(uint32_t)(centred < 0 ? -centred : centred);
    float chance = r->chance * distance;
    int32_t steps = 1;
    uint32_t cut = 0;
    if (fl_bits_of(chance) < FL_TWO_32_BITS) {
        if (bits >= fl_floor_u32(chance)) {
            return;
        }
    } else {
        steps = fl_round_up_or_down(fl_limited(r->magnitude * distance, r->most, &cut), bits);
    }
    int8_t *w = r->w + (x - r->x);
    r->clipped += cut | fl_move_int8(w, ((uint32_t)centred >> 31) == r->sign ? steps : -steps);
}

static inline void consider(int8_row_t *r, uint32_t place, uint32_t highest, int32_t zero, const int8_t *x) {
    if (*x != zero) {
        uint32_t bits = fl_mix(place);
        if (bits <= highest) {
            try_step(r, bits, x);
        }
    }
}

// Most steps are far below 1, and bits above the chance of the largest of them need no look at the others. Inputs at the zero
// point go by four at a time: most inputs of a layer behind a ReLU, most of a picture.
static void step_int8_row(int8_row_t *r, uint32_t place, uint32_t cols) {
    const float largest = r->chance * 255.0f;
    const uint32_t highest = fl_bits_of(largest) < FL_TWO_32_BITS ? fl_floor_u32(largest) : UINT32_MAX;
    const int32_t zero = r->zero;
    const uint32_t zeros = (uint32_t)(uint8_t)zero * 0x01010101u;
    const int8_t *x = r->x;
    for (const int8_t *end = x + (cols & ~3u); x != end; x += 4) {
        uint32_t four;
        memcpy(&four, x, 4);
        if (four == zeros) {
            place += 4 * FL_GOLDEN;
            continue;
        }
        consider(r, place, highest, zero, x);
        consider(r, place += FL_GOLDEN, highest, zero, x + 1);
        consider(r, place += FL_GOLDEN, highest, zero, x + 2);
        consider(r, place += FL_GOLDEN, highest, zero, x + 3);
        place += FL_GOLDEN;
    }
    for (const int8_t *end = r->x + cols; x != end; x++, place += FL_GOLDEN) {
        consider(r, place, highest, zero, x);
    }
}

void fl_step_fully_connected_row(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, float delta,
                                 const int8_t *x, uint32_t cols) {
    float factor = fl_weight_factor(u, row) * delta;
    uint32_t at = row * t->row_stride;
    if (!t->low && !t->master) {
        const float magnitude = __builtin_fabsf(factor);
        int8_row_t r = {.x = x,
                        .w = t->w + at,
                        .magnitude = magnitude,
                        .chance = magnitude * FL_TWO_32,
                        .most = (float)u->max_step,
                        .zero = u->x_zero,
                        .sign = factor < 0.0f};
        step_int8_row(&r, u->key + at * FL_GOLDEN, cols);
        *u->clipped += r.clipped;
        return;
    }
    float centred[CHUNK];
    for (uint32_t from = 0; from < cols; from += CHUNK) {
        uint32_t n = cols - from < CHUNK ? cols - from : CHUNK;
        for (uint32_t j = 0; j < n; j++) {
            centred[j] = (float)(x[from + j] - u->x_zero);
        }
        fl_move_weights(u, t, at + from, factor, centred, n);
    }
}
