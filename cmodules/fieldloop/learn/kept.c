// What a cut leaves: the list of the kept entries, channel by channel, or the delta without the others.
#include "learn/cut.h"

// A cut, and where to read keys: by value, so that a loop holds it in registers. What is compared is the doubled key, or
// for magnitudes word + offset, unsigned, which is below 2 cut - 1 for the words between -cut and cut alone: no absolute
// value, and no second comparison. A tie is `below`, or the negative word's -1.
typedef struct {
    const uint32_t *words;
    uint32_t seed, offset, below, negative_tie, ties_end;
} sieve_t;

static sieve_t sieve_of(const fl_ranking_t *r, const fl_cut_t *cut) {
    sieve_t s = {r->words, r->seed, 0, 2 * cut->cut, 2 * cut->cut, cut->ties_end};
    if (r->kind == FL_KEYS_INT16 && cut->cut > 0) {  // a cut at 0: every word is there, and 0 is the tie
        s.offset = cut->cut - 1;
        s.below = 2 * cut->cut - 1;
        s.negative_tie = UINT32_MAX;
    }
    return s;
}

FL_EVERY_WAY int passes(int way, const sieve_t *s, uint32_t i) {
    const uint32_t at = way == FL_BY_MAGNITUDE ? s->words[i] + s->offset : fl_twice_key(way, s->words, s->seed, i);
    if (at < s->below) {
        return 0;
    }
    const int is_tie = at == s->below || (way == FL_BY_MAGNITUDE && at == s->negative_tie);
    return !is_tie || i < s->ties_end;
}

// Two a turn: half of the counting.
FL_EVERY_WAY void list_kept(int way, sieve_t s, uint32_t positions, uint32_t channels, uint16_t *list) {
    const uint32_t n = positions * channels;
    uint32_t place = 0;
    uint32_t count = 0;
    for (uint32_t c = 0; c < channels; c++) {
        uint32_t i = c;
        if (positions & 1) {
            if (passes(way, &s, i)) {
                list[count++] = (uint16_t)place;
            }
            i += channels;
            place++;
        }
        for (; i < n; i += channels, place += 2) {
            if (passes(way, &s, i)) {
                list[count++] = (uint16_t)place;
            }
            i += channels;
            if (passes(way, &s, i)) {
                list[count++] = (uint16_t)(place + 1);
            }
        }
    }
}

void fl_list_kept(const fl_ranking_t *r, const fl_cut_t *cut, uint32_t positions, uint32_t channels, uint16_t *list) {
    const sieve_t s = sieve_of(r, cut);
    if (positions == 1) {  // a place is its index: one long channel instead of many short ones
        positions = channels;
        channels = 1;
    }
    FL_EACH_WAY(r, list_kept(way, s, positions, channels, list));
}

FL_EVERY_WAY void drop_others(int way, sieve_t s, uint32_t n, uint32_t *words) {
    for (uint32_t i = 0; i < n; i++) {
        if (!passes(way, &s, i)) {
            words[i] = 0;
        }
    }
}

void fl_drop_others(const fl_ranking_t *r, const fl_cut_t *cut, uint32_t *words) {
    const sieve_t s = sieve_of(r, cut);
    FL_EACH_WAY(r, drop_others(way, s, r->n, words));
}
