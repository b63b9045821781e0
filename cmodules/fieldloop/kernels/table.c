// What is looked up: a function of one int8, and rows of an embedding.
#include <string.h>

#include "fieldloop/fl_kernels.h"

void fl_table(const int8_t *table, int32_t n, const int8_t *x, int8_t *out) {
    for (int32_t i = 0; i < n; i++) {
        out[i] = table[x[i] + 128];
    }
}

void fl_embedding(int32_t entries, uint32_t row_bytes, uint32_t index_bytes, int32_t n, const void *index,
                  const void *table, void *out) {
    const int8_t *small = index;
    const int32_t *wide = index;
    uint8_t *to = out;
    for (int32_t i = 0; i < n; i++) {
        int32_t at = index_bytes == 1 ? small[i] : wide[i];
        at = at < 0 ? 0 : at >= entries ? entries - 1 : at;
        memcpy(to, (const uint8_t *)table + (size_t)at * row_bytes, row_bytes);
        to += row_bytes;
    }
}
