// Random numbers without a state: whoever knows seed and place knows the bits, in any order, on any machine.
#ifndef FIELDLOOP_FL_RANDOM_H
#define FIELDLOOP_FL_RANDOM_H

#include <stddef.h>
#include <stdint.h>

// A bijection on 32 bits with near-ideal avalanche ("lowbias32", Chris Wellons, public domain).
static inline uint32_t fl_mix(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

// Inputs for comparisons that host and board make alike: byte i is the top byte of fl_mix(fl_mix(seed) + i).
void fl_random_fill(void *out, size_t n, uint32_t seed);

#endif
