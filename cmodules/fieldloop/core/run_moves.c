// Operators that move elements of any dtype: reshape, concat, pad, transpose, slice.
#include <string.h>

#include "core/image.h"
#include "core/run.h"

// Steps along the axes of a row-major shape; unused axes are of size 1 and lie behind.
static void row_major(const int32_t shape[4], int32_t step[4]) {
    int32_t distance = 1;
    for (int32_t i = 3; i >= 0; i--) {
        step[i] = distance;
        distance *= shape[i];
    }
}

static void concat(const fl_model_t *m, const fl_op_t *op, uint32_t bytes) {
    const fl_tensor_t *y = &m->tensors[op->out[0]];
    const uint32_t axis = op->p.concat.axis;
    uint8_t *out = fl_run_out(m, op);
    fl_copy_dims_t d;
    row_major(y->shape, d.out);
    for (uint32_t i = 0; i < op->p.concat.count; i++) {
        const uint32_t t = fl_op_input(op, i);
        const int32_t *shape = m->tensors[t].shape;
        memcpy(d.n, shape, sizeof d.n);
        row_major(shape, d.x);
        fl_copy(&d, bytes, fl_model_tensor(m, t), out);
        out += (uint32_t)(shape[axis] * d.out[axis]) * bytes;
    }
}

static void pad(const fl_op_t *op, const fl_tensor_t *x, const fl_tensor_t *y, uint32_t bytes, const void *in,
                uint8_t *out) {
    fl_copy_dims_t d;
    row_major(x->shape, d.x);
    row_major(y->shape, d.out);
    memcpy(d.n, x->shape, sizeof d.n);
    int32_t from = 0;
    for (uint32_t i = 0; i < x->ndim; i++) {
        from += op->p.pad.before[i] * d.out[i];
    }
    fl_fill((int32_t)fl_elements(y), bytes, op->p.pad.value, out);
    fl_copy(&d, bytes, in, out + (uint32_t)from * bytes);
}

static void transpose(const fl_op_t *op, const fl_tensor_t *x, const fl_tensor_t *y, uint32_t bytes, const void *in,
                      void *out) {
    int32_t step[4];
    fl_copy_dims_t d;
    row_major(x->shape, step);
    row_major(y->shape, d.out);
    memcpy(d.n, y->shape, sizeof d.n);
    for (uint32_t i = 0; i < 4; i++) {
        d.x[i] = step[i < x->ndim ? op->p.transpose.axis[i] : i];
    }
    fl_copy(&d, bytes, in, out);
}

static void slice(const fl_op_t *op, const fl_tensor_t *x, const fl_tensor_t *y, uint32_t bytes, const uint8_t *in,
                  void *out) {
    int32_t step[4];
    fl_copy_dims_t d;
    row_major(x->shape, step);
    row_major(y->shape, d.out);
    memcpy(d.n, y->shape, sizeof d.n);
    int32_t from = 0;
    for (uint32_t i = 0; i < 4; i++) {
        const int32_t used = i < x->ndim;
        from += used ? op->p.slice.begin[i] * step[i] : 0;
        // a step that is never taken may not fit 32 bits
        d.x[i] = used && d.n[i] > 1 ? op->p.slice.stride[i] * step[i] : step[i];
    }
    fl_copy(&d, bytes, in + (uint32_t)from * bytes, out);
}

void fl_run_move(const fl_model_t *m, const fl_op_t *op) {
    const fl_tensor_t *x = &m->tensors[op->in[0]];
    const fl_tensor_t *y = &m->tensors[op->out[0]];
    const uint32_t bytes = fl_dtype_bytes(x->dtype);
    const void *in = fl_model_tensor(m, op->in[0]);
    void *out = fl_run_out(m, op);
    switch (op->opcode) {
    case FL_OP_CONCAT:
        concat(m, op, bytes);
        break;
    case FL_OP_PAD:
        pad(op, x, y, bytes, in, out);
        break;
    case FL_OP_TRANSPOSE:
        transpose(op, x, y, bytes, in, out);
        break;
    case FL_OP_SLICE:
        slice(op, x, y, bytes, in, out);
        break;
    default:
        if (out != in) {
            memcpy(out, in, x->bytes);  // proven not to overlap
        }
        break;
    }
}
