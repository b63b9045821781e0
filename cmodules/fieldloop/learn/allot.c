// FL_SELECT_BUDGET: one budget of MACs for a sample, shared out over the layers.
#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_select.h"

// The cheapest layer that has nothing yet; of equals the one nearest the output.
static uint32_t next_layer(const uint64_t *cost, const uint32_t *kept, uint32_t layers) {
    uint32_t cheapest = layers;
    for (uint32_t i = 0; i < layers; i++) {
        if (kept[i] == 0 && (cheapest == layers || cost[i] < cost[cheapest])) {
            cheapest = i;
        }
    }
    return cheapest;
}

void fl_allot(const uint64_t *cost, const uint32_t *n, uint32_t layers, float s_min, float s_max, float alpha,
              uint32_t *kept) {
    uint64_t budget = 0;
    for (uint32_t i = 0; i < layers; i++) {
        budget += cost[i];
        kept[i] = 0;
    }
    const fl_ratio_t ratio = {s_min, s_max, 1.0f, FL_K_INTEGER};
    budget = (budget * fl_ratio_q15(&ratio, alpha, 0) + (1u << 14)) >> 15;

    for (uint32_t left = layers; left > 0; left--) {
        uint32_t i = next_layer(cost, kept, layers);
        uint64_t share = budget / left;
        if (share >= cost[i]) {
            share = cost[i];
            kept[i] = n[i];
        } else {
            kept[i] = (uint32_t)(share / (cost[i] / n[i]));
            kept[i] += kept[i] == 0;
        }
        budget -= share;
    }
}
