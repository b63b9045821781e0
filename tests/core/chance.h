// Random numbers for drivers that also run on bare boards: the same on each.
#ifndef TESTS_CORE_CHANCE_H
#define TESTS_CORE_CHANCE_H

#include <stdint.h>

static uint64_t state;

static uint32_t any(void) {  // splitmix64
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

// low..high, both included
static int32_t in(int32_t low, int32_t high) {
    return low + (int32_t)(any() % (uint32_t)(high - low + 1));
}

static int one_in(int32_t n) {
    return in(1, n) == 1;
}

#endif
