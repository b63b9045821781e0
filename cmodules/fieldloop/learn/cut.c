// Which entries are kept: one entry asked alone, and the choice of a search.
#include "learn/cut.h"

uint32_t fl_rank_key(const fl_ranking_t *r, uint32_t i) {
    FL_EACH_WAY(r, return fl_twice_key(way, r->words, r->seed, i) >> 1);
}

int fl_is_kept(const fl_ranking_t *r, const fl_cut_t *cut, uint32_t i) {
    uint32_t key = fl_rank_key(r, i);
    return key > cut->cut || (key == cut->cut && i < cut->ties_end);
}

// All are kept: the cut is at the least key, the ties end after its last place.
FL_EVERY_WAY fl_cut_t cut_below_all(int way, const fl_ranking_t *r) {
    uint32_t least = UINT32_MAX;
    uint32_t last = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        uint32_t key = fl_twice_key(way, r->words, r->seed, i);
        if (key <= least) {
            least = key;
            last = i;
        }
    }
    return (fl_cut_t){least >> 1, last + 1};
}

// A heap is cheapest for few of not too many: measured in instructions on Cortex-M3 and M4, for 10 to 8000 entries.
static int suits_heap(uint32_t n, uint32_t k) {
    return n <= 256 && k <= 6;
}

fl_cut_t fl_select_cut(const fl_ranking_t *r, uint32_t k, uint32_t search, uint16_t *heap) {
    if (k >= r->n) {
        FL_EACH_WAY(r, return cut_below_all(way, r));
    }
    if (search == FL_SEARCH_THRESHOLD) {
        return fl_cut_by_threshold(r, k);
    }
    if (heap && (search == FL_SEARCH_HEAP || (search == FL_SEARCH_AUTO && suits_heap(r->n, k)))) {
        return fl_cut_by_heap(r, k, heap);
    }
    return fl_cut_by_histogram(r, k);
}
