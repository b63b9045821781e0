#include "fieldloop/fl_random.h"

void fl_random_fill(void *out, size_t n, uint32_t seed) {
    uint8_t *to = out;
    const uint32_t key = fl_mix(seed);
    for (size_t i = 0; i < n; i++) {
        to[i] = (uint8_t)(fl_mix(key + (uint32_t)i) >> 24);
    }
}
