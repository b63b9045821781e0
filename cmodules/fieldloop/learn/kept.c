// What a cut leaves: the list of the kept entries, channel by channel, or the delta without the others.
#include "learn/cut.h"

FL_EVERY_WAY void list_kept(int way, const fl_ranking_t *r, const fl_cut_t *cut, uint32_t positions, uint32_t channels,
                            uint16_t *list) {
    const uint32_t n = positions * channels;
    const uint32_t least = cut->cut << 1;
    const uint32_t ties_end = cut->ties_end;
    const uint32_t *words = r->words;
    const uint32_t seed = r->seed;
    uint32_t place = 0;
    for (uint32_t c = 0; c < channels; c++) {
        for (uint32_t i = c; i < n; i += channels, place++) {
            uint32_t key = fl_twice_key(way, words, seed, i);
            if (key >= least && (key > least || i < ties_end)) {
                *list++ = (uint16_t)place;
            }
        }
    }
}

void fl_list_kept(const fl_ranking_t *r, const fl_cut_t *cut, uint32_t positions, uint32_t channels, uint16_t *list) {
    if (positions == 1) {  // a place is its index: one long channel instead of many short ones
        positions = channels;
        channels = 1;
    }
    FL_EACH_WAY(r, list_kept(way, r, cut, positions, channels, list));
}

FL_EVERY_WAY void drop_others(int way, const fl_ranking_t *r, const fl_cut_t *cut, uint32_t *words) {
    const uint32_t n = r->n;
    const uint32_t least = cut->cut << 1;
    const uint32_t ties_end = cut->ties_end;
    const uint32_t *ranked = r->words;
    const uint32_t seed = r->seed;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = fl_twice_key(way, ranked, seed, i);
        if (key < least || (key == least && i >= ties_end)) {
            words[i] = 0;
        }
    }
}

void fl_drop_others(const fl_ranking_t *r, const fl_cut_t *cut, uint32_t *words) {
    FL_EACH_WAY(r, drop_others(way, r, cut, words));
}
