// The executor's parts: each looks an operator's tensors up in image and arena and hands them to a kernel. All trust
// fl_image_check, and need a bound plan.
#ifndef FIELDLOOP_CORE_RUN_H
#define FIELDLOOP_CORE_RUN_H

#include "fieldloop/fl_model.h"

void fl_run_int8(const fl_model_t *m, uint32_t index);    // run_int8.c
void fl_run_f32(const fl_model_t *m, const fl_op_t *op);  // run_f32.c
void fl_run_move(const fl_model_t *m, const fl_op_t *op); // run_moves.c: of any dtype

// b - x_zero * sum of w of a weighted int8 operator, or NULL.
const int32_t *fl_model_folded_bias(const fl_model_t *m, uint32_t op);

// How the inputs of a binary operator step along the output (run_broadcast.c).
fl_broadcast_t fl_broadcast_of(const fl_tensor_t *a, const fl_tensor_t *b, const fl_tensor_t *y);

static inline void *fl_run_out(const fl_model_t *m, const fl_op_t *op) {
    return m->arena + m->plan[op->out[0]];
}

#endif
