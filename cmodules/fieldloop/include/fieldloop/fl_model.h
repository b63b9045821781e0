// The executor: runs a checked image in the caller's arena. No allocation, no globals; one fl_model_t a user.
//
//   fl_model_t m;
//   fl_model_open(&m, image, image_bytes);                 // checks the image once
//   size_t need = fl_model_arena_bytes(&m, FL_PLAN_INFER); // known before: the planner put it into the image
//   fl_model_bind(&m, FL_PLAN_INFER, arena, need);         // arena: 16-byte aligned, the caller's
//   memcpy(fl_model_input(&m, 0), x, n); fl_model_run(&m); use(fl_model_output(&m, 0));
//
// The image and the arena must outlive the model and must not move. Inputs may be overwritten by a run
// (the planner reuses their place), so write them before each one.
#ifndef FIELDLOOP_FL_MODEL_H
#define FIELDLOOP_FL_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_image.h"
#include "fieldloop/fl_kernels.h"

// Weights that live in RAM in place of the image's: the layers that are being trained.
typedef struct {
    uint32_t op;      // index of the operator
    const int8_t *w;  // same layout and scale as the image's
    const int32_t *b;
} fl_override_t;

typedef struct {
    const uint8_t *image;
    uint32_t image_bytes;
    uint32_t tensor_count, op_count;
    const fl_tensor_t *tensors;     // [tensor_count], in the image
    const fl_op_t *ops;             // [op_count], in the image
    const uint16_t *io;             // inputs, then outputs: tensor indices
    uint16_t input_count, output_count;
    const uint32_t *plan;           // [tensor_count] arena offsets of the bound plan; NULL until fl_model_bind
    const fl_tiles_t *tiles;        // the bound plan's steps, in the image; NULL: whole operators, one after the other
    uint8_t *arena;                 // the caller's
    uint32_t arena_bytes;
    uint8_t *scratch;               // of the kernels, in the arena behind the activations; NULL where none is needed
    const fl_override_t *overrides; // [override_count], the caller's; NULL = none
    uint32_t override_count;
} fl_model_t;

// Opens a checked view on an image; errors as fl_image_check.
int fl_model_open(fl_model_t *m, const void *image, size_t image_bytes);

// Arena bytes of a plan kind, the kernels' scratch included, or 0 if the image carries no such plan; and the same for a
// build of other kernels.
size_t fl_model_arena_bytes(const fl_model_t *m, uint32_t plan_kind);
size_t fl_model_variant_arena_bytes(const fl_model_t *m, uint32_t plan_kind, fl_variant_t variant);

// Scratch bytes of operator `op` in a variant: of the most that any of its steps needs where the bound plan is tiled.
uint32_t fl_model_op_scratch(const fl_model_t *m, uint32_t op, fl_variant_t variant);

// Chooses a plan and hands over the arena. FL_ENOENT: no such plan. FL_ENOMEM: fewer than fl_model_arena_bytes.
// FL_EALIGN: arena not 16-byte aligned.
int fl_model_bind(fl_model_t *m, uint32_t plan_kind, void *arena, size_t arena_bytes);

// Place of tensor `t` (activations: in the arena, needs a bound plan; constants: in the image). NULL for an activation that
// the bound plan's tiles never hold whole.
const void *fl_model_tensor(const fl_model_t *m, uint32_t t);
// Place of input / output `i` in the arena, elements of its dtype (int8, f32 or int32); NULL if there is no such one or no
// plan is bound.
void *fl_model_input(const fl_model_t *m, uint32_t i);
const void *fl_model_output(const fl_model_t *m, uint32_t i);
const fl_tensor_t *fl_model_input_info(const fl_model_t *m, uint32_t i);
const fl_tensor_t *fl_model_output_info(const fl_model_t *m, uint32_t i);

// Runs operators [first, end); what an operator made stays until another one needs the place. FL_EINVAL without a bound
// plan or on a bad range. Under a tiled plan it runs the steps of these operators, in the plan's order.
int fl_model_run_ops(fl_model_t *m, uint32_t first, uint32_t end);
// Runs the whole model.
int fl_model_run(fl_model_t *m);

// Weights and bias that int8 operator `op` uses: an override's, else the image's. NULL where it has none.
const int8_t *fl_model_weights(const fl_model_t *m, uint32_t op);
const int32_t *fl_model_bias(const fl_model_t *m, uint32_t op);

// Multiply-accumulates of one run of operator `op` (conv, depthwise, fully connected; others 0): under a tiled plan of
// all its steps, with what they compute more than once.
uint64_t fl_model_op_macs(const fl_model_t *m, uint32_t op);

#endif
