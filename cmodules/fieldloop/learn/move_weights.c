// How a step is stored, by the kind of weight: int8 in place, int8 and 1/256ths, or an f32 master copy.
#include "learn/rounding.h"

static uint32_t move_master(int8_t *w, float *master, float s) {
    const float limit = FL_WEIGHT_LIMIT;
    float v = *master - s;
    float kept = v > limit ? limit : v < -limit ? -limit : v;
    *master = kept;
    int32_t whole = (int32_t)kept;
    float rest = kept - (float)whole;  // exact, as kept + 0.5 is not
    *w = (int8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
    return kept != v;
}

// int8 in place. Nearly all steps are far below 1, and of these nearly all move nothing: the chance of a step is worked out
// in units of 2^-32 at once, and compared with the bits.
static uint32_t move_all_int8(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t at, float factor,
                              const float *values, uint32_t n) {
    const float most = (float)u->max_step;
    const float scaled = factor * FL_TWO_32;
    uint32_t place = u->key + at * FL_GOLDEN;
    uint32_t clipped = 0;
    for (uint32_t j = 0; j < n; j++, at += t->step, place += t->step * FL_GOLDEN) {
        float value = values[j];
        if (fl_is_zero(value)) {
            continue;
        }
        float chance = scaled * value;
        int32_t steps;
        uint32_t cut = 0;
        if ((fl_bits_of(chance) & 0x7fffffffu) < FL_TWO_32_BITS) {
            if (fl_mix(place) >= fl_floor_u32(__builtin_fabsf(chance))) {
                continue;
            }
            steps = 1;
        } else {
            chance = factor * value;
            steps = fl_round_up_or_down(fl_limited(__builtin_fabsf(chance), most, &cut), fl_mix(place));
        }
        clipped += cut | fl_move_int8(t->w + at, fl_is_negative(chance) ? -steps : steps);
    }
    return clipped;
}

static uint32_t move_all_int16(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t at, float factor,
                               const float *values, uint32_t n) {
    const float most = (float)u->max_step;
    uint32_t place = u->key + at * FL_GOLDEN;
    uint32_t clipped = 0;
    for (uint32_t j = 0; j < n; j++, at += t->step, place += t->step * FL_GOLDEN) {
        if (fl_is_zero(values[j])) {
            continue;
        }
        float s = factor * values[j];
        uint32_t cut = 0;
        int32_t steps = fl_round_up_or_down(fl_limited(__builtin_fabsf(s), most, &cut) * 256.0f, fl_mix(place));
        if (steps != 0) {
            clipped += cut | fl_move_int16(t->w + at, t->low + at, fl_is_negative(s) ? -steps : steps);
        }
    }
    return clipped;
}

static uint32_t move_all_master(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t at, float factor,
                                const float *values, uint32_t n) {
    const float most = (float)u->max_step;
    uint32_t clipped = 0;
    for (uint32_t j = 0; j < n; j++, at += t->step) {
        if (fl_is_zero(values[j])) {
            continue;
        }
        float s = factor * values[j];
        uint32_t cut = 0;
        float m = fl_limited(__builtin_fabsf(s), most, &cut);
        clipped += cut | move_master(t->w + at, t->master + at, fl_is_negative(s) ? -m : m);
    }
    return clipped;
}

void fl_move_weights(const fl_step_rule_t *u, const fl_trained_t *t, uint32_t at, float factor, const float *values,
                     uint32_t n) {
    *u->clipped += t->master ? move_all_master(u, t, at, factor, values, n)
                   : t->low  ? move_all_int16(u, t, at, factor, values, n)
                             : move_all_int8(u, t, at, factor, values, n);
}
