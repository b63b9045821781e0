// The learner: sparse backpropagation on an int8 model, in the field.
//
// Forward is the inference path itself (int8). The output error and the deltas are f32; int8 weights and int32 biases
// of the trained layers are updated in place, in RAM, by plain SGD fused into the backward pass: the step is computed
// in the weights' own quantisation (real step / weight scale, "quantisation-aware"), and rounded stochastically
// with a counter-based generator, so that the same seed gives the same bytes on every machine.
// Selectors: TinyProp (arXiv 2308.09201) and TinyPropv2 (arXiv 2409.07109); equations in docs/DESIGN.md.
//
// Memory is one block of the caller's: [state | scratch]. `state` holds everything that is learned (weights, biases,
// selector maxima, counters, rehearsal memory) in a fixed little-endian layout without pointers: the store keeps these
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
};

typedef enum {
    FL_SELECT_TINYPROPV2 = 0,  // skip rule + adaptive ratio
    FL_SELECT_TINYPROP = 1,    // adaptive ratio
    FL_SELECT_DENSE = 2,       // every gradient
    FL_SELECT_TOPK = 3,        // static ratio s_max, at least 2 at the output
} fl_selector_t;

typedef enum { FL_BIAS_TOPK = 0, FL_BIAS_DENSE = 1 } fl_bias_mode_t;
typedef enum { FL_K_INTEGER = 0, FL_K_TRUNC_F32 = 1 } fl_k_rule_t;

// Fill with fl_learner_defaults(), then change what differs.
typedef struct {
    uint32_t selector;   // fl_selector_t
    uint32_t bias_mode;  // fl_bias_mode_t
    uint32_t k_rule;     // fl_k_rule_t
    uint32_t layers;     // how many of the image's trainable layers, counted from the output; 0 = all
    float s_min, s_max;  // bounds of the ratio, 0..1
    float zeta;          // damping per layer away from the output, 0..1
    float d_min, d_max;  // bounds of TinyPropv2's decision metric
    float d_thr;         // train iff the metric is above
    float rho;           // forgetting of the running maxima; 1 = none, as in the papers
    float lr;            // learning rate; times the layer's lr_scale
    uint32_t replays;    // rehearsal samples trained after each new one, at most FL_MAX_REPLAYS
    uint32_t memory;     // capacity of the rehearsal memory in RAM, in samples (balanced over classes); 0 = none
    uint32_t seed;       // of rounding and of rehearsal; a loaded state goes on with its own
} fl_learner_config_t;

// Counters since fl_learner_init or the last fl_learner_reset; part of the state.
typedef struct {
    uint64_t forward_macs;
    uint64_t backward_macs;        // executed: weight gradients and propagation of the selected entries
    uint64_t dense_backward_macs;  // what dense training of the same layers would have executed
    uint32_t samples;              // new samples given to fl_learner_step or fl_learner_train
    uint32_t replayed;             // rehearsal samples trained on top
    uint32_t trained;              // of both: those that went through the backward pass
    uint32_t skipped;              // of both: those that TinyPropv2 skipped
    uint32_t refused;              // of both: those with a non-finite error (nothing was changed)
    uint32_t remembered;           // samples in the rehearsal memory now
} fl_learner_stats_t;

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
    uint32_t weight_bytes;   // of the state: weights and biases
    uint32_t memory_bytes;   // of the state: rehearsal memory
    uint32_t scratch_bytes;  // deltas, row accumulator, kept entries, wherever they lie
    uint32_t lent_bytes;     // of the scratch: what lies in the model's arena, and total_bytes does not count
} fl_learner_sizes_t;

// A layer that is being trained: what the image says about it, and its place in the state.
typedef struct {
    uint32_t op;              // operator in the model
    uint32_t rows;            // output channels
    uint32_t row_bytes;       // weights of one output channel
    uint32_t outputs;         // entries of its delta: positions * rows
    uint32_t distance;        // p of the damping zeta^p: trained layers between it and the output
    uint32_t keep_max;        // most gradients it ever keeps (alpha = 1)
    float lr;                 // raw learning rate
    float x_scale;            // of its input
    int32_t x_zero;
    const float *w_scale;     // of row i: w_scale[i * w_scale_stride]; in the image
    uint32_t w_scale_stride;  // 0: one scale for all rows
    int8_t *w;                // [rows, row_bytes] (depthwise: [kh*kw, rows]) in the state
    int32_t *b;               // [rows] in the state; NULL: the layer has no bias
} fl_layer_t;

// May not move between fl_learner_init and the last use of the model: the model's overrides point into it.
typedef struct {
    fl_model_t *model;  // bound to FL_PLAN_LEARN by the caller
    fl_learner_config_t config;
    fl_learner_sizes_t sizes;
    uint32_t layer_count;
    uint32_t last_op;       // the operator that makes the logits
    uint32_t classes;       // entries of the logits
    uint32_t sample_bytes;  // of the model's input
    uint32_t y_max_count;   // running maxima: the output's, then one for each layer that is not the output
    uint32_t delta_bytes;   // of the scratch: two neighbouring deltas at a time
    uint32_t row_bytes;     // of the scratch: f32 gradient of the longest convolution row
    uint32_t keep_max;      // of the scratch: most kept entries of any layer
    uint32_t lent, lent_end;  // arena offsets of what the plan lends
    uint8_t lends_deltas;     // 1: deltas and row lie there
    uint8_t lends_kept;       // 1: the kept entries do
    uint64_t forward_macs;  // of one sample, up to the logits
    uint64_t dense_macs;    // of one dense backward pass
    fl_layer_t layers[FL_MAX_TRAINABLE];  // from the output backwards: [0] is the head
    fl_override_t overrides[FL_MAX_TRAINABLE];
    const uint8_t *rehearsal_labels;   // [rehearsal_count] in the image
    const int8_t *rehearsal_samples;   // [rehearsal_count, sample_bytes] in the image
    uint32_t rehearsal_count;
    uint8_t *block;            // the caller's, sizes.total_bytes
    float *y_max;              // [y_max_count] in the state
    uint32_t *memory_seen;     // [classes] samples of each class offered so far; in the state
    uint16_t *memory_labels;   // [config.memory] in the state
    int8_t *memory_samples;    // [config.memory, sample_bytes] in the state
    uint8_t *deltas;           // of the scratch: f32 deltas, then the row
    uint16_t *kept_end;        // of the scratch: where the kept entries end
} fl_learner_t;

void fl_learner_defaults(fl_learner_config_t *config);

// Sizes for a model and a configuration, without touching memory. FL_ENOENT: the image has no trainable layers.
// FL_EINVAL: a setting out of range or degenerate (never trains / never skips). FL_ENOTSUP: an operator on the way
// back that has no backward kernel, a branch, a batch, a tensor that the plan holds only in pieces, or scales with which a
// delta could leave the range of f32.
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

// Back to the image's weights, empty memory, zero counters, the configured seed.
void fl_learner_reset(fl_learner_t *l);

// The learned state: sizes.state_bytes bytes at *state, valid until the next call that changes it.
const void *fl_learner_state(const fl_learner_t *l);
// Takes over a state of another run of the same model and configuration (layer set and memory size); checks it first
// and changes nothing on FL_EBADMSG (damaged), FL_ENOTSUP (newer version) or FL_EINVAL (of another model or
// configuration).
int fl_learner_load(fl_learner_t *l, const void *state, size_t bytes);

// Counters, read from the state.
const fl_learner_stats_t *fl_learner_stats(const fl_learner_t *l);

#endif
