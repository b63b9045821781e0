// The cut by a heap of k indices, the root being the worst entry that is kept. One pass, O(n log k).
#include "learn/cut.h"

// Larger keys are better, and lower indices of equal keys: a total order, so that the root is the same entry however the
// heap came about.
FL_EVERY_WAY int worse(int way, const fl_ranking_t *r, uint32_t a, uint32_t b) {
    uint32_t key_a = fl_twice_key(way, r->words, r->seed, a);
    uint32_t key_b = fl_twice_key(way, r->words, r->seed, b);
    return key_a != key_b ? key_a < key_b : a > b;
}

// Puts `moving` in at `at` or below.
FL_EVERY_WAY void sift(int way, const fl_ranking_t *r, uint16_t *heap, uint32_t count, uint32_t at, uint32_t moving) {
    uint32_t key = fl_twice_key(way, r->words, r->seed, moving);
    for (uint32_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && worse(way, r, heap[child + 1], heap[child])) {
            child++;
        }
        uint32_t other = heap[child];
        uint32_t other_key = fl_twice_key(way, r->words, r->seed, other);
        if (other_key != key ? other_key > key : other < moving) {
            break;
        }
        heap[at] = (uint16_t)other;
        at = child;
    }
    heap[at] = (uint16_t)moving;
}

FL_EVERY_WAY fl_cut_t cut_by_heap(int way, const fl_ranking_t *r, uint32_t k, uint16_t *heap) {
    for (uint32_t i = 0; i < k; i++) {
        heap[i] = (uint16_t)i;
    }
    for (uint32_t at = k / 2; at-- > 0;) {
        sift(way, r, heap, k, at, heap[at]);
    }
    uint32_t worst = fl_twice_key(way, r->words, r->seed, heap[0]);
    for (uint32_t i = k; i < r->n; i++) {
        // a later index wins only by a larger key
        if (fl_twice_key(way, r->words, r->seed, i) > worst) {
            sift(way, r, heap, k, 0, i);
            worst = fl_twice_key(way, r->words, r->seed, heap[0]);
        }
    }
    return (fl_cut_t){worst >> 1, heap[0] + 1u};
}

fl_cut_t fl_cut_by_heap(const fl_ranking_t *r, uint32_t k, uint16_t *heap) {
    FL_EACH_WAY(r, return cut_by_heap(way, r, k, heap));
}
