// What the files of the learner share. The public story is fieldloop/fl_learn.h.
//
//   block  0 +------------------------+  fl_state_header_t: who, counters
//            | y_max    f32[n], padded|  to a multiple of 8
//            | fl_layer_stats_t[layers]|
//            | per layer, head first: |
//            |   b  i32[rows]         |
//            |   w  i8[..], padded    |  to a multiple of 4, with zeros
//            | seen     u32[classes]  |  these three only with a rehearsal memory
//            | labels   u16[memory]   |
//            | samples  i8[memory, .] |
//            +------------------------+  state_bytes
//            | (to 16)                |  from here on only what the plan has no room for in the model's arena,
//            | deltas   f32           |  two neighbours at a time, one from each end
//            | row      f32           |  gradient of one convolution row
//            | kept     u16           |  right-aligned: the last kept index ends the block
//            +------------------------+  total_bytes
//
// In the model's arena they lie in the same order and end where the part that the plan lends ends. Between two samples
// the start of the deltas also serves the rehearsal (count_memory).
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

// settings.c: does the decision metric decide?
int fl_learner_skips(const fl_learner_config_t *c);
// layout.c: everything about a learner that the image and the configuration decide; no arena yet.
int fl_learner_layout(const fl_model_t *m, const fl_learner_config_t *config, fl_learner_t *l);
// memory.c: how much of all that, and what of it the plan has room for.
int fl_learner_measure(const fl_model_t *m, fl_learner_t *l);
// memory.c: points the learner into its block.
void fl_learner_place(fl_learner_t *l, void *block);
// memory.c: and its scratch to where it lies, which may be the arena that the model is bound to now.
void fl_learner_place_scratch(fl_learner_t *l);
// layout.c: the last operator before `before` that makes tensor `t`, or -1: the walk back always ends.
int32_t fl_learner_producer(const fl_model_t *m, uint32_t t, uint32_t before);

// backward.c: walks back from the logits, whose delta lies at the start of the deltas. Returns kept entries.
uint32_t fl_learner_backward(fl_learner_t *l, float error);

// rehearsal.c: offers a new sample to the memory.
void fl_rehearsal_offer(fl_learner_t *l, const int8_t *x, uint32_t label);
// rehearsal.c: draws a stored sample; 0 when there is none.
int fl_rehearsal_draw(fl_learner_t *l, const int8_t **x, uint32_t *label);

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
