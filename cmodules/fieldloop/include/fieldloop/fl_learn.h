// The learner: sparse backpropagation on an int8 model, in the field.
//
// Forward is the inference path itself (int8). From the output error back everything is f32, or 16 bits; int8 weights and
// int32 biases of the trained layers are updated in RAM, row by row as the backward pass makes their gradients: the step
// is computed in the weights' own quantisation (real step / weight scale, "quantisation-aware"), and rounded
// stochastically with a counter-based generator, so that the same seed gives the same bytes on every machine.
// Selectors: TinyProp (arXiv 2308.09201), TinyPropv2 (arXiv 2409.07109) and what they are compared with; equations,
// sources and the walk back in docs/DESIGN.md, section 5.
//
// Memory is one block of the caller's: [state | scratch | a batch's gradients]. `state` holds everything that is learned
// (weights, biases, selector maxima, counters, rehearsal memory) in a fixed little-endian layout without pointers: the store keeps these
// bytes, and the host's learner makes the same ones. The scratch lies in the model's arena instead where the image's plan
// lends a part of it (fl_plan_t.learner_scratch): what nothing lives in from the end of one forward pass to the next.
#ifndef FIELDLOOP_FL_LEARN_H
#define FIELDLOOP_FL_LEARN_H

#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_model.h"

enum {
    FL_MAX_TRAINABLE = 16,
    FL_MAX_REPLAYS = 256,
    FL_MAX_MEMORY = 65535,  // samples
    FL_MAX_BATCH = 256,
    FL_LEAST_AT_OUTPUT = 16,  // deltas kept of the head, with k_rule integer, if it has as many
};

// How many gradients of a layer are kept. Equations and sources: docs/DESIGN.md, section 5.
typedef enum {
    FL_SELECT_TINYPROPV2 = 0,  // TinyProp's ratio, and the skip rule
    FL_SELECT_TINYPROP = 1,    // a ratio between s_min and s_max from the layer's own error
    FL_SELECT_DENSE = 2,       // every gradient
    FL_SELECT_TOPK = 3,        // the static ratio s_max
    FL_SELECT_RANDOM = 4,      // as many, but drawn at random
    FL_SELECT_LOSS = 5,        // a ratio from the loss alone, the same for every layer (Deutel et al.)
    FL_SELECT_MASK = 6,        // fixed channels of fixed layers (MIT sparse update): `mask`
    FL_SELECT_BUDGET = 7,      // skips first; what the sample's error grants is shared out over the layers by their cost
} fl_selector_t;

// Which samples go through the backward pass at all.
typedef enum {
    FL_SKIP_AUTO = 0,  // as the selector has it: tinypropv2 and budget skip
    FL_SKIP_ON = 1,    // TinyPropv2's decision metric, with any selector
    FL_SKIP_OFF = 2,
} fl_skip_t;

typedef enum { FL_UNIT_ELEMENT = 0, FL_UNIT_CHANNEL = 1 } fl_unit_t;   // what is kept or not
typedef enum { FL_RANK_ERROR = 0, FL_RANK_ACTIVATION = 1 } fl_rank_t;  // of channels: by their deltas or their outputs
// How the largest are found; all of them keep the same ones.
typedef enum { FL_SEARCH_AUTO = 0, FL_SEARCH_HEAP = 1, FL_SEARCH_HISTOGRAM = 2, FL_SEARCH_THRESHOLD = 3 } fl_search_t;
typedef enum { FL_BIAS_TOPK = 0, FL_BIAS_DENSE = 1 } fl_bias_mode_t;
typedef enum { FL_K_INTEGER = 0, FL_K_TRUNC_F32 = 1 } fl_k_rule_t;
// Deltas: f32, or 16 bits and one power of two for a whole map, for parts without an FPU.
typedef enum { FL_DELTAS_F32 = 0, FL_DELTAS_INT16 = 1 } fl_deltas_t;
// What a trained weight is kept in. Inference always runs with its int8 part.
typedef enum {
    FL_WEIGHTS_INT8 = 0,   // in place; steps are rounded stochastically
    FL_WEIGHTS_INT16 = 1,  // and a second byte of 1/256 steps: 2 bytes a weight
    FL_WEIGHTS_F32 = 2,    // and an f32 master copy, the reference: 5 bytes a weight
} fl_weights_t;
typedef enum {
    FL_OPTIMIZER_SGD = 0,
    FL_OPTIMIZER_MOMENTUM = 1,  // on rows that are trained: 4 bytes more a weight
    FL_OPTIMIZER_ADAM = 2,      // for the head, SGD elsewhere: 8 bytes more a weight of the head
} fl_optimizer_t;

// Fill with fl_learner_defaults(), then change what differs.
typedef struct {
    uint32_t selector;   // fl_selector_t
    uint32_t skip;       // fl_skip_t
    uint32_t unit;       // fl_unit_t
    uint32_t rank;       // fl_rank_t; activation only with unit channel
    uint32_t search;     // fl_search_t
    uint32_t bias_mode;  // fl_bias_mode_t
    uint32_t k_rule;     // fl_k_rule_t
    uint32_t deltas;     // fl_deltas_t; int16 only with SGD, batch 1 and weights of int8 or int16
    uint32_t weights;    // fl_weights_t
    uint32_t optimizer;  // fl_optimizer_t
    uint32_t layers;     // how many of the image's trainable layers, counted from the output; 0 = all
    uint32_t floor;      // least entries (channels) kept of a layer, >= 1
    uint32_t batch;      // trained samples from one update to the next, >= 1: their gradients are averaged
    uint32_t max_step;   // most steps of its int8 part that a weight moves at once, 1..254
    float s_min, s_max;  // bounds of the ratio, 0..1
    float zeta;          // damping per layer away from the output, 0..1
    float d_min, d_max;  // bounds of TinyPropv2's decision metric
    float d_thr;         // train iff the metric is above
    float rho;           // forgetting of the running maxima; 1 = none, as in the papers
    float lr;            // learning rate; times the layer's lr_scale
    float beta1, beta2;  // decay of momentum (and of Adam's first moment), and of Adam's second; 0..1, below 1
    uint32_t replays;    // rehearsal samples trained after each new one, at most FL_MAX_REPLAYS
    uint32_t memory;     // capacity of the rehearsal memory in RAM, in samples (balanced over classes); 0 = none
    uint32_t holdout;    // every n-th sample of the image's rehearsal set is only evaluated on; 0 = none, else >= 2
    uint32_t seed;       // of rounding, drawing and rehearsal; a loaded state goes on with its own
    // of FL_SELECT_MASK: share of channels trained, in 1/255, from the output backwards; what leads to shares of 0 alone is not
    // walked
    uint8_t mask[FL_MAX_TRAINABLE];
} fl_learner_config_t;

// Counters since fl_learner_init or the last fl_learner_reset; part of the state.
typedef struct {
    uint64_t forward_macs;
    uint64_t backward_macs;        // weight gradients and propagation of the kept entries
    uint64_t dense_backward_macs;  // what dense training of the same layers would have taken
    uint64_t clipped;              // weights that moved less than the step asked for: max_step, or the end of int8
    uint32_t samples;              // new samples given to fl_learner_step or fl_learner_train
    uint32_t replayed;             // rehearsal samples trained on top
    uint32_t trained;              // of both: those that went through the backward pass
    uint32_t skipped;              // of both: those that the decision metric skipped
    uint32_t refused;              // of both: those with a non-finite value or error (nothing was changed)
    uint32_t remembered;           // samples in the rehearsal memory now
    uint32_t clamped;              // samples that fl_learner_quantize had to clamp to the input's range
    uint32_t updates;              // times that weights were written: trained, or trained / batch
} fl_learner_stats_t;

// Of one trained layer, since the same moment; part of the state.
typedef struct {
    uint64_t entries;  // of its deltas, over all trained samples
    uint64_t kept;     // of them
    uint64_t clipped;  // as above, of this layer
    float decay1, decay2;  // beta1^updates and beta2^updates, for Adam
} fl_layer_stats_t;

// What happened in one call of fl_learner_step.
typedef struct {
    float error;          // 2 (1 - p_label) of the new sample before the update: the L1 norm of the output error
    uint32_t predicted;   // class of the highest logit before the update
    uint32_t trained;     // 1: went through the backward pass; 0: skipped or refused
    uint32_t kept;        // gradients kept over all layers, for the new sample
} fl_step_t;

typedef struct {
    uint32_t total_bytes;    // the block to hand to fl_learner_init
    uint32_t state_bytes;    // its first part: what a commit writes
    uint32_t weight_bytes;   // of the state: weights and biases, low bytes and master copies included
    uint32_t optimizer_bytes;  // of the state: momentum, Adam's moments
    uint32_t memory_bytes;   // of the state: rehearsal memory
    uint32_t scratch_bytes;  // deltas, row accumulator, kept entries, wherever they lie
    uint32_t lent_bytes;     // of the scratch: what lies in the model's arena, and total_bytes does not count
    uint32_t batch_bytes;    // gradients that a batch gathers, at the block's end; 0 where batch is 1
} fl_learner_sizes_t;

// A layer that is being trained: what the image says about it, and its place in the state.
typedef struct {
    uint32_t op;              // operator in the model
    uint32_t rows;            // output channels
    uint32_t row_bytes;       // weights of one output channel
    uint32_t outputs;         // entries of its delta: positions * rows; after the pool that is fused into it
    uint32_t distance;        // p of the damping zeta^p: trained layers between it and the output
    uint32_t keep_max;        // most entries (channels) it ever keeps (alpha = 1)
    uint32_t optimizer;       // fl_optimizer_t
    uint32_t propagates;      // 1: something below it is trained
    uint32_t granted;         // FL_SELECT_BUDGET: entries (channels) of the sample that is being trained
    uint64_t entry_macs;      // of one entry, once
    float lr;                 // raw learning rate
    float x_scale;            // of its input
    int32_t x_zero;
    const float *w_scale;     // of row i: w_scale[i * w_scale_stride]; in the image
    uint32_t w_scale_stride;  // 0: one scale for all rows
    int8_t *w;                // [rows, row_bytes] (depthwise: [kh*kw, rows]) in the state
    int32_t *b;               // [rows] in the state; NULL: the layer has no bias
    // the rest in the state, NULL where the configuration has none; as fl_trained_t in fl_backward.h has them
    int8_t *low;
    float *master;
    float *moment1, *moment2;            // of the weights
    float *bias_moment1, *bias_moment2;  // [rows]
    // of a batch that is being gathered
    float *slots;             // [slot_count, row_bytes + 1]: gradient of a row, and of its bias
    uint16_t *slot_of;        // [rows]; FL_NO_SLOT
    uint32_t slot_count, slots_taken;
} fl_layer_t;

enum {
    FL_MAX_WAY = 48,     // operators that a walk back passes
    FL_MAX_DELTAS = 49,  // each makes one at most, and the output's
    FL_NONE = 0xff,      // in the fields of fl_hop_t
    FL_NO_SLOT = 0xffff,
};

// One operator of the walk back, worked out beforehand.
typedef struct {
    uint16_t op;
    uint8_t layer;  // its number where it is trained; else FL_NONE
    uint8_t pool;   // convolution: step of the pool that is fused into it; else FL_NONE
    uint8_t delta;  // of its output
    uint8_t to[2];  // where its input's (inputs') delta goes; FL_NONE: nothing below is trained. The same as `delta`: goes on
    uint8_t flags;  // FL_WAY_*, learn/learner.h
} fl_hop_t;

// A delta on the walk back: so many words from word `at` of the deltas on.
typedef struct {
    uint32_t at, words;
    int32_t exponent;  // FL_DELTAS_INT16
} fl_delta_t;

// May not move between fl_learner_init and the last use of the model: the model's overrides point into it.
typedef struct {
    fl_model_t *model;  // bound to FL_PLAN_LEARN by the caller
    fl_learner_config_t config;
    fl_learner_sizes_t sizes;
    uint32_t layer_count;
    uint32_t way_count, delta_count;
    uint32_t last_op;       // the operator that makes the logits
    uint32_t classes;       // entries of the logits
    uint32_t sample_bytes;  // of the model's input
    uint32_t y_max_count;   // running maxima: the output's, each layer's that is not the output, the loss's (FL_SELECT_LOSS)
    uint32_t delta_words;   // of the scratch: all deltas
    uint32_t row_words;     // of the scratch: gradient of the longest row, or the importance of channels
    uint32_t list_room;     // of the scratch: entries of the list of kept ones
    uint32_t batch_from;    // of the block: where the batch's slots begin
    uint32_t gathered;      // samples in the batch that is being gathered
    uint32_t lent, lent_end;  // arena offsets of what the plan lends
    uint8_t lends_deltas;     // 1: deltas and row lie there
    uint8_t lends_list;       // 1: the list does
    uint64_t forward_macs;  // of one sample, up to the logits
    uint64_t dense_macs;    // of one dense backward pass
    fl_layer_t layers[FL_MAX_TRAINABLE];  // from the output backwards: [0] is the head
    fl_override_t overrides[FL_MAX_TRAINABLE];
    fl_hop_t way[FL_MAX_WAY];
    fl_delta_t delta[FL_MAX_DELTAS];
    const uint8_t *rehearsal_labels;   // [rehearsal_count] in the image
    const int8_t *rehearsal_samples;   // [rehearsal_count, sample_bytes] in the image
    uint32_t rehearsal_count;
    uint8_t *block;            // the caller's, sizes.total_bytes
    float *y_max;              // [y_max_count] in the state
    fl_layer_stats_t *layer_stats;  // [layer_count] in the state
    uint32_t *memory_seen;     // [classes] samples of each class offered so far; in the state
    uint16_t *memory_labels;   // [config.memory] in the state
    int8_t *memory_samples;    // [config.memory, sample_bytes] in the state
    uint8_t *deltas;           // of the scratch: deltas, then the row
    uint16_t *list_end;        // of the scratch: where the list ends
} fl_learner_t;

void fl_learner_defaults(fl_learner_config_t *config);

// NULL, or what is wrong with the settings, as a constant string: "name: reason".
const char *fl_learner_complaint(const fl_learner_config_t *config);

// Sizes for a model and a configuration, without touching memory. FL_ENOENT: the image has no trainable layers.
// FL_EINVAL: a setting out of range or degenerate (never trains / never skips). FL_ENOTSUP: an operator on the way
// back that has no backward kernel, more than FL_MAX_WAY of them, a trained layer that does not lead to the logits, a batch
// of inputs, a tensor that the plan holds only in pieces, or scales with which a delta could leave its range.
int fl_learner_sizes(const fl_model_t *m, const fl_learner_config_t *config, fl_learner_sizes_t *sizes);

// Starts from the image's (factory) weights. The learner's weights take effect for every later run of `m`. FL_EINVAL: `m`
// is not bound to FL_PLAN_LEARN. FL_ENOMEM: block smaller than total_bytes. FL_EALIGN: not 16-byte aligned. FL_ENOTSUP:
// f32 arithmetic is not IEEE 754 with subnormals (flush-to-zero is on). Else as fl_learner_sizes. Changes nothing then.
int fl_learner_init(fl_learner_t *l, fl_model_t *m, const fl_learner_config_t *config, void *block, size_t block_bytes);

// Learns one labelled sample: x int8 [input bytes] in the model's own quantisation. Trains on it, offers it to the
// rehearsal memory (a reservoir per class), then trains on `replays` samples drawn from the image's rehearsal set and the
// memory: a class uniformly, then one of its samples uniformly. A refused sample is neither kept nor followed by replays.
// FL_EINVAL: label >= classes, x in the model's own arena (a run overwrites it), or the model is no longer bound to
// FL_PLAN_LEARN. What a learner leaves in the model's arena: the input and the outputs of the trained layers and the model's
// outputs, as the last forward pass wrote them; nothing else. `step` may be NULL.
int fl_learner_step(fl_learner_t *l, const int8_t *x, uint32_t label, fl_step_t *step);

// One sample without memory or rehearsal: the inner step; x may be the model's input. FL_EINVAL: as fl_learner_step.
int fl_learner_train(fl_learner_t *l, const int8_t *x, uint32_t label, fl_step_t *step);

// Writes what a batch has gathered so far, averaged over its trained samples; does nothing where batch is 1 or nothing
// was gathered. A state does not hold a batch that is not finished.
void fl_learner_flush(fl_learner_t *l);

// Real values x [elements of the input] to the model's input quantisation, q [input bytes], as fl_quantize has it, so that
// a sample learned is the one that is predicted. What lies beyond the range is clamped, and the sample counts as
// `clamped`. FL_EDOM: a value is NaN or infinite; the sample counts as `refused`, and q holds nothing of use.
int fl_learner_quantize(fl_learner_t *l, const float *x, int8_t *q);

// Predicts the held-out samples of the image's rehearsal set (config.holdout; with 0 all of it). *right of *total samples.
// Counts nothing, changes no weight; the arena is left as fl_learner_step leaves it. FL_EINVAL: not bound to FL_PLAN_LEARN.
int fl_learner_evaluate(fl_learner_t *l, uint32_t *right, uint32_t *total);

// Back to the image's weights, empty memory, zero counters, the configured seed.
void fl_learner_reset(fl_learner_t *l);

// The learned state: sizes.state_bytes bytes at *state, valid until the next call that changes it.
const void *fl_learner_state(const fl_learner_t *l);
// Would fl_learner_load take a state of `bytes` bytes with this head? Looks at all that does not need the rest of the state,
// so that a caller without room for a second one knows before it gives up the first. Errors as fl_learner_load.
enum { FL_LEARNER_HEAD = 128 };
int fl_learner_fits(const fl_learner_t *l, const void *head, size_t bytes);  // head: [FL_LEARNER_HEAD]

// Takes over a state of another run of the same model and configuration (layer set and memory size); checks it first
// and changes nothing on FL_EBADMSG (damaged), FL_ENOTSUP (newer version) or FL_EINVAL (of another model or
// configuration).
int fl_learner_load(fl_learner_t *l, const void *state, size_t bytes);

// Counters, read from the state.
const fl_learner_stats_t *fl_learner_stats(const fl_learner_t *l);
// Of layer i < layer_count, from the output backwards.
const fl_layer_stats_t *fl_learner_layer_stats(const fl_learner_t *l, uint32_t i);
// Weights of layer i that lie at +-127 now.
uint32_t fl_learner_saturated(const fl_learner_t *l, uint32_t i);

#endif
