// Operators that move elements: where each comes from and where it goes stays inside both tensors.
#include "core/image_checks.h"

static int check_concat(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    const fl_concat_params_t *p = &op->p.concat;
    if (p->axis >= y->ndim || p->count < 1 || p->count > FL_CONCAT_MAX) {
        return FL_EBADMSG;
    }
    int64_t length = 0;  // along the axis
    for (uint32_t i = 0; i < FL_CONCAT_MAX; i++) {
        const uint32_t index = fl_op_input(op, i);
        if (i >= p->count) {
            if (index != FL_NO_TENSOR) {
                return FL_EBADMSG;
            }
            continue;
        }
        if (index >= v->tensor_count) {  // those beyond in[4] were not looked at before
            return FL_EBADMSG;
        }
        const fl_tensor_t *x = fl_tensor_of(v, index);
        if (x->dtype != y->dtype || x->ndim != y->ndim || x->channel_scales || !fl_same_quantisation(x, y)) {
            return FL_EBADMSG;
        }
        for (uint32_t axis = 0; axis < y->ndim; axis++) {
            if (axis != p->axis && x->shape[axis] != y->shape[axis]) {
                return FL_EBADMSG;
            }
        }
        length += x->shape[p->axis];
    }
    return length == y->shape[p->axis] ? FL_OK : FL_EBADMSG;
}

static int check_pad(const fl_tensor_t *x, const fl_tensor_t *y, const fl_pad_params_t *p) {
    for (uint32_t i = 0; i < x->ndim; i++) {
        if ((int64_t)x->shape[i] + p->before[i] + p->after[i] != y->shape[i]) {
            return FL_EBADMSG;
        }
    }
    return x->dtype != FL_I8 || (p->value >= -128 && p->value <= 127) ? FL_OK : FL_EBADMSG;
}

static int check_transpose(const fl_tensor_t *x, const fl_tensor_t *y, const fl_transpose_params_t *p) {
    uint32_t seen = 0;
    for (uint32_t i = 0; i < x->ndim; i++) {
        if (p->axis[i] >= x->ndim || y->shape[i] != x->shape[p->axis[i]]) {
            return FL_EBADMSG;
        }
        seen |= 1u << p->axis[i];
    }
    return seen == (1u << x->ndim) - 1 ? FL_OK : FL_EBADMSG;
}

static int check_slice(const fl_tensor_t *x, const fl_tensor_t *y, const fl_slice_params_t *p) {
    for (uint32_t i = 0; i < x->ndim; i++) {
        if (p->begin[i] < 0 || p->stride[i] < 1 ||
            p->begin[i] + (int64_t)(y->shape[i] - 1) * p->stride[i] >= x->shape[i]) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}

int fl_check_move(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = fl_tensor_of(v, op->in[0]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    if (y->dtype != x->dtype || !fl_same_quantisation(x, y)) {
        return FL_EBADMSG;
    }
    if (op->opcode == FL_OP_RESHAPE) {
        return x->bytes == y->bytes ? FL_OK : FL_EBADMSG;
    }
    if (x->ndim != y->ndim) {
        return FL_EBADMSG;
    }
    switch (op->opcode) {
    case FL_OP_CONCAT:
        return check_concat(v, op);
    case FL_OP_PAD:
        return check_pad(x, y, &op->p.pad);
    case FL_OP_TRANSPOSE:
        return check_transpose(x, y, &op->p.transpose);
    default:
        return check_slice(x, y, &op->p.slice);
    }
}

// The index is any activation of numbers; what it holds is clamped at run time.
int fl_check_embedding(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *table = fl_tensor_of(v, op->in[1]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    if (table->kind != FL_CONSTANT || table->channel_scales || table->dtype != y->dtype ||
        !fl_same_quantisation(table, y)) {
        return FL_EBADMSG;
    }
    const uint64_t row = table->bytes / (uint32_t)table->shape[0];
    return fl_elements(fl_tensor_of(v, op->in[0])) * row == y->bytes ? FL_OK : FL_EBADMSG;
}
