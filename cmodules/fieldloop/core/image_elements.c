// Element by element, and over axes: binary operators, softmax, mean, and functions of one number.
#include "core/image_checks.h"

enum { MAX_ADD_SHIFT = 20 };

static int is_fraction(fl_requant_t r) {
    return fl_is_factor(r) && r.shift <= 0;
}

// Aligned at their ends, axes are equal or one of them is 1; the output has the larger of each.
static int check_broadcast(const fl_tensor_t *a, const fl_tensor_t *b, const fl_tensor_t *y) {
    if (y->ndim != (a->ndim > b->ndim ? a->ndim : b->ndim)) {
        return FL_EBADMSG;
    }
    for (uint32_t i = 1; i <= y->ndim; i++) {
        const int32_t n = y->shape[y->ndim - i];
        const int32_t l = i <= a->ndim ? a->shape[a->ndim - i] : 1;
        const int32_t r = i <= b->ndim ? b->shape[b->ndim - i] : 1;
        if ((l != n && l != 1) || (r != n && r != 1) || (l != n && r != n)) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}

int fl_check_binary(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *a = fl_tensor_of(v, op->in[0]);
    const fl_tensor_t *b = fl_tensor_of(v, op->in[1]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    if (b->dtype != a->dtype) {
        return FL_ENOTSUP;
    }
    if (a->channel_scales || b->channel_scales || check_broadcast(a, b, y)) {
        return FL_EBADMSG;
    }
    if (a->dtype == FL_F32) {
        return FL_OK;
    }
    if (op->opcode == FL_OP_MUL) {
        return fl_is_factor(op->p.mul.out) ? FL_OK : FL_EBADMSG;
    }
    if (op->opcode == FL_OP_MINIMUM || op->opcode == FL_OP_MAXIMUM) {
        return fl_same_quantisation(a, b) && fl_same_quantisation(a, y) ? FL_OK : FL_EBADMSG;
    }
    // no factor is above 1: the sums stay far inside 32 bits
    const fl_add_params_t *p = &op->p.add;
    const int sound = p->left_shift >= 0 && p->left_shift <= MAX_ADD_SHIFT && is_fraction(p->a) && is_fraction(p->b) &&
                      is_fraction(p->out);
    return sound ? FL_OK : FL_EBADMSG;
}

int fl_check_softmax(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = fl_tensor_of(v, op->in[0]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    const fl_softmax_params_t *p = &op->p.softmax;
    if (!fl_same_shape(x, y)) {
        return FL_EBADMSG;
    }
    if (x->dtype == FL_F32) {
        return FL_OK;
    }
    if (y->scale != 1.0f / 256.0f || y->zero_point != -128) {
        return FL_EBADMSG;
    }
    if (x->shape[x->ndim - 1] > FL_SOFTMAX_MAX_COLS) {
        return FL_ENOTSUP;
    }
    if (p->input_multiplier < 1 << 30 || p->input_left_shift < 0 || p->input_left_shift > 31 || p->diff_min > 0) {
        return FL_EBADMSG;
    }
    // the largest difference that still contributes must stay in Q5.26: above -32
    const int64_t diff = p->diff_min < -255 ? 255 : -p->diff_min;
    return diff << p->input_left_shift <= (int64_t)31 << 26 ? FL_OK : FL_EBADMSG;
}

// The output is x without the averaged axes, or with 1 in their place.
int fl_check_mean(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = fl_tensor_of(v, op->in[0]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    const fl_mean_params_t *p = &op->p.mean;
    if (p->axes == 0 || p->axes >> x->ndim != 0) {
        return FL_EBADMSG;
    }
    fl_tensor_t kept = {.ndim = x->ndim, .shape = {1, 1, 1, 1}};
    fl_tensor_t dropped = {.ndim = 0, .shape = {1, 1, 1, 1}};
    for (uint32_t i = 0; i < x->ndim; i++) {
        if (!(p->axes >> i & 1u)) {
            kept.shape[i] = x->shape[i];
            dropped.shape[dropped.ndim++] = x->shape[i];
        }
    }
    dropped.ndim = dropped.ndim ? dropped.ndim : 1;
    if (!fl_same_shape(y, &kept) && !fl_same_shape(y, &dropped)) {
        return FL_EBADMSG;
    }
    // the factor holds the count, so its multiplier may lie below 2^30
    const int sound = x->dtype == FL_F32 || (p->out.multiplier >= 0 && p->out.shift >= -31 && p->out.shift <= 30);
    return sound ? FL_OK : FL_EBADMSG;
}

int fl_check_one_to_one(const fl_view_t *v, const fl_op_t *op) {
    if (!fl_same_shape(fl_tensor_of(v, op->in[0]), fl_tensor_of(v, op->out[0]))) {
        return FL_EBADMSG;
    }
    if (op->opcode == FL_OP_UNARY) {
        return op->p.unary.kind <= FL_UNARY_EXP ? FL_OK : FL_ENOTSUP;
    }
    if (op->opcode == FL_OP_TABLE) {
        const fl_tensor_t *table = fl_tensor_of(v, op->in[1]);
        return table->dtype == FL_I8 && table->kind == FL_CONSTANT && table->bytes == 256 ? FL_OK : FL_EBADMSG;
    }
    return FL_OK;
}
