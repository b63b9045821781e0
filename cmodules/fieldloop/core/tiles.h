// Steps of a tiled plan (fl_image.h, "tiles"), as their checks and the executor see them.
#ifndef FIELDLOOP_CORE_TILES_H
#define FIELDLOOP_CORE_TILES_H

#include "fieldloop/fl_model.h"

// The maps of a step's operator, whole: of its input and of its output. 0 where a step cannot see it so.
int fl_step_maps(const fl_tensor_t *tensors, const fl_op_t *op, const fl_plan_step_t *s, fl_map_dims_t *d);

// The window of a step's operator: turned where the step is; that of a fully connected layer covers its rows of x.
void fl_step_window(const fl_op_t *op, const fl_plan_step_t *s, fl_conv_params_t *p);

// A tile as a kernel sees it: the box alone (d), with the padding that is left to it (p).
typedef struct {
    fl_conv_params_t p;
    fl_map_dims_t d, whole;
} fl_tile_t;

void fl_tile_of(const fl_tensor_t *tensors, const fl_op_t *op, const fl_plan_step_t *s, fl_tile_t *t);

// A step in iteration `i` of the loop around it.
void fl_step_at(const fl_plan_step_t *s, uint32_t i, fl_plan_step_t *at);

// The steps of a plan kind, or NULL.
const fl_tiles_t *fl_find_tiles(const void *image, uint32_t kind);

static inline const fl_plan_step_t *fl_steps_of(const fl_tiles_t *tiles) {
    return (const fl_plan_step_t *)(const void *)(tiles + 1);
}

// The most scratch that any of the steps needs, and the multiply-accumulates of all; of operator `op`, or of every one
// (FL_EVERY_OP).
enum { FL_EVERY_OP = 0xffff };
uint32_t fl_tiles_scratch(const fl_model_t *m, const fl_tiles_t *tiles, uint32_t op, fl_variant_t variant);
uint64_t fl_tiles_macs(const fl_model_t *m, const fl_tiles_t *tiles, uint32_t op);

// Runs a box of an operator (run_tiles.c).
void fl_run_tile(const fl_model_t *m, const fl_plan_step_t *s);

#endif
