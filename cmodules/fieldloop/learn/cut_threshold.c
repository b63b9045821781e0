// The cut by bisection of the key: no memory at all, for about a pass over the entries per bit.
#include "learn/cut.h"

FL_EVERY_WAY uint32_t count_from(int way, const fl_ranking_t *r, uint32_t key) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        count += fl_twice_key(way, r->words, r->seed, i) >= key << 1;
    }
    return count;
}

// The least key that is not below `from`, and the end of its ties.
FL_EVERY_WAY fl_cut_t least_from(int way, const fl_ranking_t *r, uint32_t from) {
    uint32_t least = UINT32_MAX;
    uint32_t last = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t key = fl_twice_key(way, r->words, r->seed, i);
        if (key >= from << 1 && key <= least) {
            least = key;
            last = i;
        }
    }
    return (fl_cut_t){least >> 1, last + 1};
}

FL_EVERY_WAY fl_cut_t cut_by_threshold(int way, const fl_ranking_t *r, uint32_t k) {
    uint32_t low = 0;  // at least k entries have keys from here on
    uint32_t high = way == FL_BY_MAGNITUDE ? 1u << 15 : 1u << 31;  // fewer have keys from here on:
    uint32_t better = 0;                                            // so many
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        uint32_t count = count_from(way, r, middle);
        if (count == k) {
            return least_from(way, r, middle);
        }
        if (count > k) {
            low = middle;
        } else {
            high = middle;
            better = count;
        }
    }
    return (fl_cut_t){low, fl_ties_end(way, r, low, k - better)};
}

fl_cut_t fl_cut_by_threshold(const fl_ranking_t *r, uint32_t k) {
    FL_EACH_WAY(r, return cut_by_threshold(way, r, k));
}
