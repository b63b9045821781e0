// What the files that check an image share. The public story is fieldloop/fl_image.h.
#ifndef FIELDLOOP_CORE_IMAGE_H
#define FIELDLOOP_CORE_IMAGE_H

#include "fieldloop/fl_image.h"
#include "fieldloop/fl_kernels.h"

// Images and arenas stay below 1 GiB, so that the 32-bit indices of the kernels cannot overflow.
enum { FL_MAX_BYTES = 1 << 30 };

// The checks walk operators and inputs in pairs: these keep a hostile image from taking minutes.
enum { FL_MAX_OPS = 4096, FL_MAX_IO = 255 };

// An image whose header, CRC and section table are sound; filled in further as sections are proven.
typedef struct {
    const uint8_t *base;
    uint32_t total;
    const fl_section_t *sections;  // [section_count]
    uint32_t section_count;
    const fl_tensor_t *tensors;  // [tensor_count]
    uint32_t tensor_count;
    const fl_op_t *ops;  // [op_count]
    uint32_t op_count;
    const uint16_t *io;  // inputs, then outputs
    uint32_t input_count, output_count;
    uint32_t data_from, data_end;  // the DATA section
} fl_view_t;

// The bytes at `offset`; the caller has proven that they lie in the image and are aligned.
static inline const void *fl_at(const fl_view_t *v, uint32_t offset) {
    return v->base + offset;
}

// True where [offset, offset + bytes) lies in DATA and is aligned.
static inline int fl_in_data(const fl_view_t *v, uint32_t offset, uint64_t bytes, uint32_t align) {
    return offset >= v->data_from && offset <= v->data_end && bytes <= v->data_end - offset && offset % align == 0;
}

// False for NaN and infinity too.
static inline int fl_positive(float s) {
    return s > 0.0f && s - s == 0.0f;
}

static inline uint32_t fl_dtype_bytes(uint32_t dtype) {
    return dtype == FL_I8 || dtype == FL_U8 ? 1 : 4;
}

// Elements of a tensor; 1 to FL_MAX_BYTES once check_tensors has passed.
static inline uint32_t fl_elements(const fl_tensor_t *t) {
    return t->bytes / fl_dtype_bytes(t->dtype);
}

static inline int fl_is_weighted(uint32_t opcode) {
    return opcode == FL_OP_CONV2D || opcode == FL_OP_DEPTHWISE_CONV2D || opcode == FL_OP_FULLY_CONNECTED;
}

static inline int fl_is_binary(uint32_t opcode) {
    return opcode == FL_OP_ADD || (opcode >= FL_OP_SUB && opcode <= FL_OP_MAXIMUM);
}

// Elements are copied, whatever they are.
static inline int fl_is_move(uint32_t opcode) {
    return opcode == FL_OP_RESHAPE || (opcode >= FL_OP_CONCAT && opcode <= FL_OP_SLICE);
}

// Input `i` of 0..FL_CONCAT_MAX-1, or FL_NO_TENSOR: those of a concat beyond the fourth are among its parameters.
static inline uint32_t fl_op_input(const fl_op_t *op, uint32_t i) {
    return i < 4 ? op->in[i] : op->opcode == FL_OP_CONCAT ? op->p.concat.more[i - 4] : FL_NO_TENSOR;
}

// Places of inputs to look at.
static inline uint32_t fl_op_places(const fl_op_t *op) {
    return op->opcode == FL_OP_CONCAT ? FL_CONCAT_MAX : 4;
}

static inline fl_map_dims_t fl_map_dims(const fl_tensor_t *x, const fl_tensor_t *y) {
    return (fl_map_dims_t){
        .in_h = x->shape[1],
        .in_w = x->shape[2],
        .in_c = x->shape[3],
        .out_h = y->shape[1],
        .out_w = y->shape[2],
        .out_c = y->shape[3],
    };
}

// Each returns FL_OK or the error of fl_image_check, and relies on those before it.
int fl_check_tensors(const fl_view_t *v);            // image_graph.c
int fl_check_io(const fl_view_t *v);                 // image_graph.c
int fl_check_flow(const fl_view_t *v);               // image_graph.c: written once, before it is read
int fl_check_op(const fl_view_t *v, const fl_op_t *op);                              // image_ops.c
int fl_check_plans(const fl_view_t *v);                                              // image_plan.c
int fl_check_labels(const uint8_t *data, uint32_t bytes);                            // image_extra.c
int fl_check_trainables(const fl_view_t *v, const uint8_t *data, uint32_t bytes);    // image_extra.c
int fl_check_rehearsal(const fl_view_t *v, const uint8_t *data, uint32_t bytes);     // image_extra.c

#endif
