// The k largest of n magnitudes: one pass with a heap of k indices whose root is the worst kept entry. O(n log k), no copy
// of the data. "Better" is a total order (larger magnitude, then lower index), so that the kept set is the same whatever
// the algorithm.
#include <string.h>

#include "fieldloop/fl_backward.h"

// Magnitudes compare as integers: same order as |f32|, and one instruction where f32 is software.
static uint32_t magnitude(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits & 0x7fffffffu;
}

static int worse(const float *delta, uint16_t a, uint16_t b) {
    uint32_t ma = magnitude(delta[a]);
    uint32_t mb = magnitude(delta[b]);
    return ma != mb ? ma < mb : a > b;
}

// Root = worst entry.
static void sift_worst(const float *delta, uint16_t *heap, uint32_t count, uint32_t at) {
    uint16_t moving = heap[at];
    for (uint32_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && worse(delta, heap[child + 1], heap[child])) {
            child++;
        }
        if (!worse(delta, heap[child], moving)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

// Root = largest index.
static void sift_largest(uint16_t *heap, uint32_t count, uint32_t at) {
    uint16_t moving = heap[at];
    for (uint32_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && heap[child + 1] > heap[child]) {
            child++;
        }
        if (heap[child] <= moving) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static void sort_ascending(uint16_t *v, uint32_t count) {
    for (uint32_t at = count / 2; at-- > 0;) {
        sift_largest(v, count, at);
    }
    for (uint32_t end = count; end-- > 1;) {
        uint16_t largest = v[0];
        v[0] = v[end];
        v[end] = largest;
        sift_largest(v, end, 0);
    }
}

void fl_top_k(const float *delta, uint32_t n, uint32_t k, uint16_t *kept) {
    for (uint32_t i = 0; i < k; i++) {
        kept[i] = (uint16_t)i;
    }
    if (k == n) {
        return;
    }
    for (uint32_t at = k / 2; at-- > 0;) {
        sift_worst(delta, kept, k, at);
    }
    for (uint32_t i = k; i < n; i++) {
        // a later index wins only by a larger magnitude
        if (magnitude(delta[i]) > magnitude(delta[kept[0]])) {
            kept[0] = (uint16_t)i;
            sift_worst(delta, kept, k, 0);
        }
    }
    sort_ascending(kept, k);
}

void fl_group_by_channel(uint16_t *kept, uint32_t count, uint32_t positions, uint32_t channels) {
    if (positions == 1) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t position = kept[i] / channels;
        uint32_t c = kept[i] - position * channels;
        kept[i] = (uint16_t)(c * positions + position);
    }
    sort_ascending(kept, count);
}
