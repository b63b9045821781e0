// Random numbers without a state: a 32-bit integer mixer over (seed, step, stream, index). Whoever knows the four numbers
// knows the bits, so host and board round alike, in any order of evaluation.
#include "learn/rounding.h"

uint32_t fl_random_key(uint32_t seed, uint32_t step, uint32_t stream) {
    uint32_t key = fl_mix(seed + FL_GOLDEN);
    key = fl_mix(key ^ (step * FL_GOLDEN));
    return fl_mix(key ^ (stream + FL_GOLDEN));
}

uint32_t fl_random(uint32_t key, uint32_t index) {
    return fl_mix(key + index * FL_GOLDEN);
}

uint32_t fl_random_below(uint32_t bits, uint32_t n) {
    return (uint32_t)(((uint64_t)bits * n) >> 32);
}

// Magnitude and sign apart: whole part and fraction of |v| are both exact in f32, which floor(w - v + u) is not
// (w - v drops small steps, and + u can round up to the next integer). A step far below 1 keeps its exact chance.
int32_t fl_round_stochastic(float v, uint32_t bits) {
    float m = v < 0.0f ? -v : v;
    if (!(m < 2147483520.0f)) {  // the f32 below 2^31
        m = 2147483520.0f;
    }
    int32_t whole = (int32_t)m;
    float fraction = m - (float)whole;
    if (bits < (uint32_t)(fraction * 4294967296.0f)) {
        whole++;
    }
    return v < 0.0f ? -whole : whole;
}
