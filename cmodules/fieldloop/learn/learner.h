// What the files of the learner share. The public story is fieldloop/fl_learn.h.
//
//   block  0 +------------------------+  fl_state_header_t: who, counters
//            | y_max    f32[n], padded|  to a multiple of 8
//            | fl_layer_stats_t[layers]|
//            | per layer, head first: |
//            |   b  i32[rows]         |
//            |   w  i8[..], padded    |  to a multiple of 4, with zeros
//            |   low i8[..], padded   |  FL_WEIGHTS_INT16; FL_WEIGHTS_F32: master f32[..]
//            |   moments f32          |  of the weights, then of the biases: momentum one each, Adam two each of the head
//            | seen     u32[classes]  |  these three only with a rehearsal memory
//            | labels   u16[memory]   |
//            | samples  i8[memory, .] |
//            +------------------------+  state_bytes
//            | (to 16)                |  from here on only what the plan has no room for in the model's arena,
//            | deltas   words         |  f32, or 16 bits in 32
//            | row      words         |  gradient of one row, or the importance of channels
//            | list     u16           |  right-aligned: its last entry ends the scratch
//            +------------------------+
//            | slots    f32           |  (to 4) of a batch: gradients of rows and biases, layer by layer
//            | slot_of  u16           |  which slot a row has
//            +------------------------+  total_bytes
//
// In the model's arena the scratch lies in the same order and ends where the part that the plan lends ends. Between two
// samples the start of the deltas also serves the rehearsal (count_memory).
#ifndef FIELDLOOP_LEARN_LEARNER_H
#define FIELDLOOP_LEARN_LEARNER_H

#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_learn.h"

enum {
    FL_STATE_MAGIC = 0x31534c46,  // "FLS1"
    FL_STATE_VERSION = 2,
};

typedef struct {
    uint32_t magic;
    uint16_t version;
    uint16_t layer_count;
    uint32_t state_bytes;
    uint32_t memory;         // capacity, samples
    uint8_t uid[16];         // of the image
    uint32_t sample_bytes;
    uint32_t y_max_count;
    uint32_t seed;
    uint32_t step;           // samples presented, the counter of rounding
    uint32_t draw;           // random decisions of the rehearsal so far
    uint8_t weights;         // fl_weights_t and fl_optimizer_t: they decide what lies behind
    uint8_t optimizer;
    uint16_t reserved16;     // 0
    uint32_t reserved[2];    // 0
    fl_learner_stats_t stats;
} fl_state_header_t;

_Static_assert(sizeof(fl_learner_stats_t) == 64, "the state lies in flash");
_Static_assert(sizeof(fl_state_header_t) == 128, "the state lies in flash");
_Static_assert(sizeof(fl_layer_stats_t) == 32, "the state lies in flash");

static inline fl_state_header_t *fl_state(const fl_learner_t *l) {
    return (fl_state_header_t *)(void *)l->block;
}

enum {
    FL_WAY_ADDS = 1,      // fl_hop_t.flags: to[0] holds a delta already; shifted by 1, to[1]
    FL_WAY_FUSED = 4,     // a pool whose delta is that of the convolution before it, place by place
    FL_WAY_IDLE = 8,      // neither here nor below does a mask train anything: not walked
    FL_LISTED_PART = 16,  // so many-th part of a delta's entries is listed at most, but FL_LISTED_LEAST
    FL_LISTED_LEAST = 64,
};

static inline int fl_is_finite(float v) {
    return v - v == 0.0f;
}

// settings.c: does the decision metric decide?
int fl_learner_skips(const fl_learner_config_t *c);
// layout.c: everything about a learner that the image and the configuration decide; no arena yet.
int fl_learner_layout(const fl_model_t *m, const fl_learner_config_t *config, fl_learner_t *l);
// way.c: fills way, delta, delta_words, layer_count. trained[count]: the layers, in execution order. limit: no delta's L1 norm
// may come to it.
int fl_learner_way(const fl_model_t *m, fl_learner_t *l, const fl_trainable_t *trained, uint32_t count, float limit);
// way.c: takes from the walk what leads to layers alone that a mask leaves out. What was planned and counted stays.
void fl_learner_prune(const fl_model_t *m, fl_learner_t *l);
// way.c: the last operator before `before` that makes tensor `t`, or -1: the walk back always ends.
int32_t fl_learner_producer(const fl_model_t *m, uint32_t t, uint32_t before);
// layout.c: multiply-accumulates of one entry of a weighted operator's delta.
uint64_t fl_learner_entry_macs(const fl_model_t *m, const fl_learner_t *l, const fl_hop_t *step);
// memory.c: how much of all that, and what of it the plan has room for.
int fl_learner_measure(const fl_model_t *m, fl_learner_t *l);
// way.c: is the delta of the output of step `at` masked by its operator's own clamp? The logits' is not: a saturated one
// must be able to come back.
int fl_learner_masks(const fl_model_t *m, const fl_learner_t *l, uint32_t at);
// memory.c: points the learner into its block.
void fl_learner_place(fl_learner_t *l, void *block);
// memory.c: and its scratch to where it lies, which may be the arena that the model is bound to now.
void fl_learner_place_scratch(fl_learner_t *l);

// ---- one sample's walk back

// backward.c: from the logits, whose delta lies at the start of the deltas. Returns kept entries.
uint32_t fl_learner_backward(fl_learner_t *l, float error);

// What of a layer's delta takes part.
typedef struct {
    const uint16_t *list;  // NULL: all of it; what is zero makes no spot
    uint32_t count;        // of the list
    uint32_t channels;     // 1: it holds channels, all entries of which take part; 0: entries, c * positions + position
} fl_kept_t;

// choose.c: the most entries (channels) that layer `i` keeps of n, at alpha = 1.
uint32_t fl_learner_keep_max(const fl_learner_config_t *c, const fl_layer_t *layer, uint32_t n);
// choose.c: fewer than so many it never keeps (not of selector mask).
uint32_t fl_learner_keep_least(const fl_learner_config_t *c, const fl_layer_t *layer, uint32_t n);
// choose.c: shares the budget out, where the selector has one: what is granted to each layer.
void fl_learner_grant(fl_learner_t *l, float error);
// choose.c: what of a layer is updated. May set what is not kept to zero. `l1`: of a delta of 16 bits. *entries: how many.
fl_kept_t fl_learner_choose(fl_learner_t *l, const fl_hop_t *step, float error, float rate, uint32_t l1,
                            uint32_t *entries);
// update_layer.c: moves the weights and biases of a layer, or gathers their gradients.
void fl_learner_update(fl_learner_t *l, const fl_hop_t *step, const fl_kept_t *kept, uint32_t l1);
// update_layer.c: how a layer steps its rows in this update, which begins; clipped weights are counted in *clipped.
void fl_learner_begin_update(fl_learner_t *l, const fl_layer_t *layer, uint64_t *clipped, fl_step_rule_t *rule);
void fl_learner_end_update(fl_learner_t *l, const fl_layer_t *layer, const fl_step_rule_t *rule);
fl_trained_t fl_learner_trained(const fl_learner_t *l, const fl_layer_t *layer);
// update_layer.c: nothing where the layer has no bias.
void fl_learner_step_bias(const fl_step_rule_t *rule, const fl_layer_t *layer, uint32_t row, float sum);
// A mask leaves this layer out.
static inline int fl_is_frozen(const fl_learner_t *l, const fl_layer_t *layer) {
    return l->config.selector == FL_SELECT_MASK && l->config.mask[layer->distance] == 0;
}
// propagate.c: from the delta of a step's output to that of its input.
void fl_learner_propagate(fl_learner_t *l, const fl_hop_t *step, const fl_kept_t *kept, uint32_t l1);

// batch.c: adds a row's gradient (NULL: none), or its bias's, to what the batch has gathered.
void fl_batch_add(fl_layer_t *layer, uint32_t row, const float *gradient, float bias);
// batch.c: empties all slots.
void fl_batch_clear(fl_learner_t *l);
// batch.c: 1 where the gradients of more than one sample are gathered before weights move.
static inline int fl_is_batched(const fl_learner_t *l) {
    return l->config.batch > 1;
}

static inline fl_word_t *fl_words(const fl_learner_t *l, uint32_t delta) {
    return (fl_word_t *)(void *)l->deltas + l->delta[delta].at;
}
static inline void *fl_row(const fl_learner_t *l) {
    return (fl_word_t *)(void *)l->deltas + l->delta_words;
}
static inline int fl_is_q(const fl_learner_t *l) {
    return l->config.deltas == FL_DELTAS_INT16;
}

// rehearsal.c: offers a new sample to the memory.
void fl_rehearsal_offer(fl_learner_t *l, const int8_t *x, uint32_t label);
// rehearsal.c: draws a stored sample; 0 when there is none.
int fl_rehearsal_draw(fl_learner_t *l, const int8_t **x, uint32_t *label);
// rehearsal.c: sample i of the image's set is only evaluated on.
static inline int fl_is_held_out(const fl_learner_config_t *c, uint32_t i) {
    return c->holdout && i % c->holdout == c->holdout - 1;
}
// learner.c: is the model (still) bound to FL_PLAN_LEARN?
int fl_learner_is_bound(const fl_model_t *m);

// Operators with weights, and weights of one output channel.
static inline int fl_has_weights(const fl_op_t *op) {
    return op->opcode == FL_OP_FULLY_CONNECTED || op->opcode == FL_OP_CONV2D || op->opcode == FL_OP_DEPTHWISE_CONV2D;
}
static inline uint32_t fl_output_channels(const fl_model_t *m, const fl_op_t *op) {
    const fl_tensor_t *w = &m->tensors[op->in[1]];
    return (uint32_t)(op->opcode == FL_OP_DEPTHWISE_CONV2D ? w->shape[3] : w->shape[0]);
}
static inline uint32_t fl_row_bytes(const fl_model_t *m, const fl_op_t *op) {
    return m->tensors[op->in[1]].bytes / fl_output_channels(m, op);
}
static inline fl_row_scales_t fl_weight_scales(const fl_model_t *m, const fl_op_t *op) {
    const fl_tensor_t *w = &m->tensors[op->in[1]];
    if (w->channel_scales) {
        return (fl_row_scales_t){(const float *)(const void *)(m->image + w->channel_scales), 1};
    }
    return (fl_row_scales_t){&w->scale, 0};
}

// Shapes of an operator's maps, for the backward kernels.
fl_map_dims_t fl_learner_dims(const fl_model_t *m, const fl_op_t *op);

#endif
