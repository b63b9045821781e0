// What to repeat: old samples from the image (in place, in flash) and new ones kept in RAM.
//
// The memory is a reservoir per class. While it has room every sample enters. When it is full, a class below its quota
// (capacity / classes present) takes the place of a random sample of the largest class; a class at its quota
// replaces one of its own with probability quota / samples of it seen so far. Every random decision is a function of the
// seed and a counter, both in the state.
#include <string.h>

#include "learner.h"

#define STREAM_REHEARSAL 0x72656873u  // apart from the rounding streams, which are operator indices

static uint32_t random_below(fl_learner_t *l, uint32_t n) {
    fl_state_header_t *state = fl_state(l);
    uint32_t bits = fl_random(fl_random_key(state->seed, 0, STREAM_REHEARSAL), state->draw++);
    return fl_random_below(bits, n);
}

// Per-class counts, u32[classes], at the start of the deltas: none is alive between two samples.
static uint32_t *count_memory(fl_learner_t *l) {
    uint32_t *counts = (uint32_t *)(void *)l->deltas;
    memset(counts, 0, l->classes * sizeof *counts);
    for (uint32_t i = 0; i < fl_state(l)->stats.remembered; i++) {
        counts[l->memory_labels[i]]++;
    }
    return counts;
}

// Place of the n-th sample of a class in the memory.
static uint32_t nth_in_memory(const fl_learner_t *l, uint32_t label, uint32_t n) {
    uint32_t i = 0;
    while (l->memory_labels[i] != label || n-- > 0) {
        i++;
    }
    return i;
}

static void put(fl_learner_t *l, uint32_t place, const int8_t *x, uint32_t label) {
    l->memory_labels[place] = (uint16_t)label;
    memcpy(l->memory_samples + (size_t)place * l->sample_bytes, x, l->sample_bytes);
}

void fl_rehearsal_offer(fl_learner_t *l, const int8_t *x, uint32_t label) {
    uint32_t capacity = l->config.memory;
    if (capacity == 0) {
        return;
    }
    if (l->memory_seen[label] < UINT32_MAX) {
        l->memory_seen[label]++;
    }
    uint32_t *remembered = &fl_state(l)->stats.remembered;
    if (*remembered < capacity) {
        put(l, (*remembered)++, x, label);
        return;
    }
    const uint32_t *counts = count_memory(l);
    uint32_t present = counts[label] == 0;  // the newcomer's class counts too
    uint32_t largest = 0;
    for (uint32_t c = 0; c < l->classes; c++) {
        present += counts[c] > 0;
        if (counts[c] > counts[largest]) {
            largest = c;
        }
    }
    uint32_t quota = capacity / present;
    if (counts[label] < (quota ? quota : 1)) {
        put(l, nth_in_memory(l, largest, random_below(l, counts[largest])), x, label);
        return;
    }
    uint32_t n = random_below(l, l->memory_seen[label]);
    if (n < counts[label]) {
        put(l, nth_in_memory(l, label, n), x, label);
    }
}

int fl_rehearsal_draw(fl_learner_t *l, const int8_t **x, uint32_t *label) {
    uint32_t *counts = count_memory(l);
    for (uint32_t i = 0; i < l->rehearsal_count; i++) {
        counts[l->rehearsal_labels[i]] += !fl_is_held_out(&l->config, i);
    }
    uint32_t present = 0;
    for (uint32_t c = 0; c < l->classes; c++) {
        present += counts[c] > 0;
    }
    if (present == 0) {
        return 0;
    }
    uint32_t chosen = random_below(l, present);
    uint32_t c = 0;
    while (counts[c] == 0 || chosen-- > 0) {
        c++;
    }
    uint32_t n = random_below(l, counts[c]);
    *label = c;
    for (uint32_t i = 0; i < l->rehearsal_count; i++) {
        if (l->rehearsal_labels[i] == c && !fl_is_held_out(&l->config, i) && n-- == 0) {
            *x = l->rehearsal_samples + (size_t)i * l->sample_bytes;
            return 1;
        }
    }
    *x = l->memory_samples + (size_t)nth_in_memory(l, c, n) * l->sample_bytes;
    return 1;
}
