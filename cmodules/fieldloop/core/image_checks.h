// What the checks of operators share.
#ifndef FIELDLOOP_CORE_IMAGE_CHECKS_H
#define FIELDLOOP_CORE_IMAGE_CHECKS_H

#include "core/image.h"
#include "fieldloop/fl_error.h"

// Each relies on fl_check_op: the tensors' indices, kinds and dtypes, and the clamp, are proven.
int fl_check_conv2d(const fl_view_t *v, const fl_op_t *op);           // image_windows.c
int fl_check_depthwise(const fl_view_t *v, const fl_op_t *op);        // image_windows.c
int fl_check_fully_connected(const fl_view_t *v, const fl_op_t *op);  // image_windows.c
int fl_check_pool(const fl_view_t *v, const fl_op_t *op);             // image_windows.c
int fl_check_binary(const fl_view_t *v, const fl_op_t *op);           // image_elements.c
int fl_check_softmax(const fl_view_t *v, const fl_op_t *op);          // image_elements.c
int fl_check_mean(const fl_view_t *v, const fl_op_t *op);             // image_elements.c
int fl_check_one_to_one(const fl_view_t *v, const fl_op_t *op);       // image_elements.c: table, quantize, unary, ...
int fl_check_embedding(const fl_view_t *v, const fl_op_t *op);        // image_moves.c
int fl_check_move(const fl_view_t *v, const fl_op_t *op);             // image_moves.c

// A plan on its way through the checks.
typedef struct {
    const fl_plan_t *plan;
    const uint32_t *offsets;  // [tensor_count]
    uint32_t highest;         // end of anything that was seen in the arena
} fl_places_t;

// That an operator may run between the places of its tensors; `in_place`: element by element, over its input.
int fl_check_whole(const fl_view_t *v, const fl_places_t *a, const fl_op_t *op, int in_place);  // image_plan.c
int fl_check_tiles(const fl_view_t *v, fl_places_t *a, const fl_section_t *section);           // image_tiles.c

static inline const fl_tensor_t *fl_tensor_of(const fl_view_t *v, uint32_t index) {
    return &v->tensors[index];
}

static inline int fl_same_shape(const fl_tensor_t *a, const fl_tensor_t *b) {
    for (uint32_t i = 0; i < 4; i++) {
        if (a->shape[i] != b->shape[i]) {
            return 0;
        }
    }
    return a->ndim == b->ndim;
}

// The same int8 means the same number; f32 and int32 mean themselves.
static inline int fl_same_quantisation(const fl_tensor_t *a, const fl_tensor_t *b) {
    return a->dtype != FL_I8 || (a->scale == b->scale && a->zero_point == b->zero_point);
}

static inline int fl_is_factor(fl_requant_t r) {
    return (r.multiplier == 0 || r.multiplier >= 1 << 30) && r.shift >= -31 && r.shift <= 30;
}

#endif
