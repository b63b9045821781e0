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

// Scratch and multiply-accumulates of a whole operator.
uint32_t fl_op_scratch(const fl_model_t *m, uint32_t op, fl_variant_t variant);
uint64_t fl_op_macs(const fl_model_t *m, uint32_t op);

// A clamp of f32, from the bits that the image holds (run_f32.c).
float fl_float_of(int32_t bits);

// Factors, zero points and clamp of a weighted int8 operator, and of a mean (run_int8.c).
fl_quant_t fl_quant_of(const fl_model_t *m, uint32_t op);
fl_mean_quant_t fl_mean_quant_of(const fl_model_t *m, const fl_op_t *op);

// Element by element, of any dtype: binary operators, table, quantize, dequantize, unary (run_elements.c). The second one
// runs on any elements: of one input d->n[3] of them; b of binary operators only.
void fl_run_elements(const fl_model_t *m, const fl_op_t *op);
void fl_run_elements_at(const fl_model_t *m, const fl_op_t *op, const fl_broadcast_t *d, const void *a, const void *b,
                        void *out);

static inline void *fl_run_out(const fl_model_t *m, const fl_op_t *op) {
    return m->arena + m->plan[op->out[0]];
}

#endif
