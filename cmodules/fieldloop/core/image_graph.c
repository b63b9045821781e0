// Tensors one by one, inputs and outputs, and the flow of values through the operators.
#include "core/image.h"
#include "fieldloop/fl_error.h"

static int check_shape(const fl_tensor_t *t) {
    if (t->ndim < 1 || t->ndim > 4) {
        return FL_EBADMSG;
    }
    uint64_t bytes = fl_dtype_bytes(t->dtype);
    for (uint32_t i = 0; i < 4; i++) {
        if (t->shape[i] < 1 || (i >= t->ndim && t->shape[i] != 1)) {
            return FL_EBADMSG;
        }
        bytes *= (uint32_t)t->shape[i];
        if (bytes > FL_MAX_BYTES) {
            return FL_EBADMSG;
        }
    }
    return bytes == t->bytes ? FL_OK : FL_EBADMSG;
}

static int check_scales(const fl_view_t *v, const fl_tensor_t *t) {
    if (t->dtype == FL_I8 ? t->zero_point < -128 || t->zero_point > 127 : t->zero_point != 0) {
        return FL_EBADMSG;
    }
    if (t->channel_scales == 0) {
        // int8 always has a scale; int32 and f32 may do without
        int sound = fl_positive(t->scale) || (t->dtype != FL_I8 && t->scale == 0.0f);
        return sound && t->channel_count == 0 ? FL_OK : FL_EBADMSG;
    }
    if (t->kind != FL_CONSTANT || t->channel_count == 0 || t->zero_point != 0 || t->scale != 0.0f ||
        !fl_in_data(v, t->channel_scales, (uint64_t)t->channel_count * sizeof(float), sizeof(float))) {
        return FL_EBADMSG;
    }
    const float *scales = (const float *)fl_at(v, t->channel_scales);
    for (uint32_t i = 0; i < t->channel_count; i++) {
        if (!fl_positive(scales[i])) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}

int fl_check_tensors(const fl_view_t *v) {
    for (uint32_t i = 0; i < v->tensor_count; i++) {
        const fl_tensor_t *t = &v->tensors[i];
        if (t->dtype > FL_U8) {
            return FL_ENOTSUP;
        }
        if (t->kind > FL_CONSTANT || check_shape(t) || check_scales(v, t)) {
            return FL_EBADMSG;
        }
        if (t->kind == FL_CONSTANT ? !fl_in_data(v, t->offset, t->bytes, fl_dtype_bytes(t->dtype)) : t->offset != 0) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}

int fl_check_io(const fl_view_t *v) {
    if (v->input_count == 0 || v->output_count == 0) {
        return FL_EBADMSG;
    }
    if (v->input_count > FL_MAX_IO || v->output_count > FL_MAX_IO) {
        return FL_ENOTSUP;
    }
    for (uint32_t i = 0; i < v->input_count + v->output_count; i++) {
        if (v->io[i] >= v->tensor_count || v->tensors[v->io[i]].kind != FL_ACTIVATION) {
            return FL_EBADMSG;
        }
        if (v->tensors[v->io[i]].dtype == FL_U8) {
            return FL_ENOTSUP;
        }
        for (uint32_t j = 0; i < v->input_count && j < i; j++) {
            if (v->io[j] == v->io[i]) {
                return FL_EBADMSG;  // the same input twice
            }
        }
    }
    return FL_OK;
}

// Was activation `t` there before operator `end`: an input, or made by an operator before it?
static int is_made(const fl_view_t *v, uint32_t t, uint32_t end) {
    for (uint32_t i = 0; i < v->input_count; i++) {
        if (v->io[i] == t) {
            return 1;
        }
    }
    for (uint32_t i = end; i-- > 0;) {  // mostly the operator just before
        if (v->ops[i].out[0] == t) {
            return 1;
        }
    }
    return 0;
}

int fl_check_flow(const fl_view_t *v) {
    for (uint32_t i = 0; i < v->op_count; i++) {
        const fl_op_t *op = &v->ops[i];
        for (uint32_t j = 0; j < fl_op_places(op); j++) {
            uint32_t t = fl_op_input(op, j);
            if (t != FL_NO_TENSOR && v->tensors[t].kind == FL_ACTIVATION && !is_made(v, t, i)) {
                return FL_EBADMSG;
            }
        }
        if (is_made(v, op->out[0], i)) {
            return FL_EBADMSG;
        }
    }
    for (uint32_t i = 0; i < v->output_count; i++) {
        if (!is_made(v, v->io[v->input_count + i], v->op_count)) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}
