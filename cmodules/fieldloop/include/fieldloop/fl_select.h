// Selection: which entries of a delta take part, and how many. Each function is usable on its own; the learner calls them
// in the order that docs/DESIGN.md, section 5, tells.
//
// A delta is an array of 32-bit words: f32, or, with FL_DELTAS_INT16, integers of 16 bits (fl_backward_q.h). What is
// compared are keys: u32 below 2^31, larger = kept first; of equal keys the lower index is kept first. Whatever the search,
// the cut is the same.
#ifndef FIELDLOOP_FL_SELECT_H
#define FIELDLOOP_FL_SELECT_H

#include <stdint.h>

#include "fieldloop/fl_learn.h"

// Where keys come from: FL_KEYS_F32 |f32|, by its bits (a NaN above infinity); FL_KEYS_INT16 |word|; FL_KEYS_RANDOM a hash of the
// index under `seed`, whatever the words; FL_KEYS_U32 the words themselves, below 2^31 (a channel's importance).
typedef enum { FL_KEYS_F32 = 0, FL_KEYS_INT16 = 1, FL_KEYS_RANDOM = 2, FL_KEYS_U32 = 3 } fl_keys_t;

typedef struct {
    const uint32_t *words;  // [n]
    uint32_t n;             // 1..65535
    uint32_t kind;          // fl_keys_t
    uint32_t seed;          // of FL_KEYS_RANDOM: fl_random(seed, index) >> 1
} fl_ranking_t;

// What is kept: every i with key > cut, and those with key == cut and i < ties_end. `cut` is the key of the worst entry that
// is kept and ties_end - 1 its index, so that there is one cut only for a k. Stateless: a kernel may ask in any order.
typedef struct {
    uint32_t cut;
    uint32_t ties_end;
} fl_cut_t;

uint32_t fl_rank_key(const fl_ranking_t *r, uint32_t i);
int fl_is_kept(const fl_ranking_t *r, const fl_cut_t *cut, uint32_t i);

// The cut that keeps exactly k of n, 1 <= k <= n. `search` is fl_search_t. `heap`: room for k indices, or
// NULL: then the histogram serves instead of a heap. FL_SEARCH_AUTO: the heap for a few of a few hundred, else the histogram
// (512 bytes of stack; about 14 instructions an entry, however many are kept).
fl_cut_t fl_select_cut(const fl_ranking_t *r, uint32_t k, uint32_t search, uint16_t *heap);

// Kept entries of a map [positions, channels] (index position * channels + c) as c * positions + position, ascending: the
// entries of one channel stand together. Room for k.
void fl_list_kept(const fl_ranking_t *r, const fl_cut_t *cut, uint32_t positions, uint32_t channels, uint16_t *list);
// Sets every word that is not kept to 0.
void fl_drop_others(const fl_ranking_t *r, const fl_cut_t *cut, uint32_t *words);

// ---- the importance of channels, u32 [channels], for unit channel: larger = kept first ----

// f32: bits of the L1 norm of each channel (sum over ascending positions); int16: the exact sum.
void fl_channel_errors(const uint32_t *delta /* [positions, channels] */, uint32_t deltas /* fl_deltas_t */,
                       uint32_t positions, uint32_t channels, uint32_t *importance);
// Sum of |q - zero_point| of the layer's int8 output.
void fl_channel_activations(const int8_t *q /* [positions, channels] */, int32_t zero_point, uint32_t positions,
                            uint32_t channels, uint32_t *importance);
// L1 norm of the channels' weights: what FL_SELECT_MASK ranks by, once. `stride`, `step`: weight j of channel c lies at
// w[c * stride + j * step], j < n.
void fl_channel_weights(const int8_t *w, uint32_t stride, uint32_t step, uint32_t n, uint32_t channels, uint32_t *importance);

// ---- how many ----

// Cross-entropy -ln p of the label from its missing probability, f32; `missing` 0..1, in steps of 2^-24 as fl_output_error
// has it: within 1 ulp and monotone, both proved for every step (other values are rounded to a step first). Finite: missing 1
// counts as 1 - 2^-24.
float fl_loss(float missing);

// FL_SELECT_BUDGET. Every layer asks for its dense cost; what alpha grants, (s_min + alpha (s_max - s_min)) of all of them
// together, is shared out evenly from the cheapest layer on (of equals the first): one that wants less than its share gets all
// it wants and leaves the rest to the others. cost[i] > 0: MACs of one entry of layer i times its entries n[i]; all costs
// together below 2^49. kept[i]: whole entries that fit into the share, 1..n[i]. Integers only, so that every machine grants
// the same: budget = (sum of cost * fl_ratio_q15 + 2^14) >> 15; share = budget / layers still to serve, rounded down; a layer
// takes min(share, cost) off the budget.
void fl_allot(const uint64_t *cost /* [layers] */, const uint32_t *n /* [layers] */, uint32_t layers, float s_min,
              float s_max, float alpha, uint32_t *kept /* [layers] */);

#endif
