// Operators: which tensors each takes, and that their shapes, factors and windows fit together.
#include "core/image.h"
#include "fieldloop/fl_error.h"
#include "fieldloop/fl_kernels.h"

enum {
    MAX_PAD = 32767,          // below or right of the map, too
    MAX_POOL_TAPS = 1 << 23,  // what a 32-bit sum of int8 can hold
    MAX_ADD_SHIFT = 20,
};

static const fl_tensor_t *tensor(const fl_view_t *v, uint32_t index) {
    return &v->tensors[index];
}

// `count` tensors from in[0] on, those at and after `optional` may be absent; the other places are empty.
static int check_inputs(const fl_view_t *v, const fl_op_t *op, uint32_t count, uint32_t optional) {
    for (uint32_t i = 0; i < 4; i++) {
        if (op->in[i] == FL_NO_TENSOR ? i < optional : (i >= count || op->in[i] >= v->tensor_count)) {
            return FL_EBADMSG;
        }
    }
    if (op->out[0] >= v->tensor_count || op->out[1] != FL_NO_TENSOR) {
        return FL_EBADMSG;
    }
    if (tensor(v, op->in[0])->dtype != FL_I8 || tensor(v, op->out[0])->dtype != FL_I8) {
        return FL_ENOTSUP;
    }
    if (tensor(v, op->in[0])->kind != FL_ACTIVATION || tensor(v, op->out[0])->kind != FL_ACTIVATION) {
        return FL_EBADMSG;
    }
    return FL_OK;
}

static int same_shape(const fl_tensor_t *a, const fl_tensor_t *b) {
    for (uint32_t i = 0; i < 4; i++) {
        if (a->shape[i] != b->shape[i]) {
            return 0;
        }
    }
    return a->ndim == b->ndim;
}

static int same_quantisation(const fl_tensor_t *a, const fl_tensor_t *b) {
    return a->scale == b->scale && a->zero_point == b->zero_point;
}

static int is_factor(fl_requant_t r) {
    return (r.multiplier == 0 || r.multiplier >= 1 << 30) && r.shift >= -31 && r.shift <= 30;
}

static int check_requant(const fl_view_t *v, const fl_op_t *op, uint32_t channels) {
    if ((op->requant_count != 1 && op->requant_count != channels) ||
        !fl_in_data(v, op->requant, (uint64_t)op->requant_count * sizeof(fl_requant_t), sizeof(int32_t))) {
        return FL_EBADMSG;
    }
    const fl_requant_t *requant = (const fl_requant_t *)fl_at(v, op->requant);
    for (uint32_t i = 0; i < op->requant_count; i++) {
        if (!is_factor(requant[i])) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}

// Weights int8, constant, `ndim` dimensions, with one scale or `channels` of them; a bias, if any, int32[channels].
static int check_weights(const fl_view_t *v, const fl_op_t *op, uint32_t ndim, uint32_t channel_axis) {
    const fl_tensor_t *w = tensor(v, op->in[1]);
    if (w->dtype != FL_I8) {
        return FL_ENOTSUP;
    }
    if (w->kind != FL_CONSTANT || w->ndim != ndim || w->zero_point != 0) {
        return FL_EBADMSG;
    }
    const uint32_t channels = (uint32_t)w->shape[channel_axis];
    if (w->channel_scales && w->channel_count != channels) {
        return FL_EBADMSG;
    }
    if (op->in[2] != FL_NO_TENSOR) {
        const fl_tensor_t *b = tensor(v, op->in[2]);
        if (b->dtype != FL_I32) {
            return FL_ENOTSUP;
        }
        if (b->kind != FL_CONSTANT || fl_elements(b) != channels) {
            return FL_EBADMSG;
        }
    }
    if (op->in[3] != FL_NO_TENSOR) {
        const fl_tensor_t *folded = tensor(v, op->in[3]);
        if (folded->dtype != FL_I32 || folded->kind != FL_CONSTANT || fl_elements(folded) != channels) {
            return FL_EBADMSG;
        }
    }
    return check_requant(v, op, channels);
}

// One axis of a window: output positions, padding before, and what follows from them.
static int check_axis(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
    if (kernel < 1 || stride < 1 || dilation < 1 || pad < 0) {
        return FL_EBADMSG;
    }
    // padding after the map; negative: pixels that no window reaches, fewer than a step of them
    int64_t after = (out - 1) * stride + (kernel - 1) * dilation + 1 - in - pad;
    return after <= MAX_PAD && -after < stride ? FL_OK : FL_EBADMSG;
}

static int check_window(const fl_tensor_t *x, const fl_tensor_t *y, const fl_conv_params_t *p) {
    if (x->ndim != 4 || y->ndim != 4) {
        return FL_EBADMSG;
    }
    if (x->shape[0] != 1 || y->shape[0] != 1) {
        return FL_ENOTSUP;  // one sample at a time
    }
    int bad = check_axis(x->shape[1], y->shape[1], p->kernel_h, p->stride_h, p->dilation_h, p->pad_top) ||
              check_axis(x->shape[2], y->shape[2], p->kernel_w, p->stride_w, p->dilation_w, p->pad_left);
    return bad ? FL_EBADMSG : FL_OK;
}

static int check_conv2d(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = tensor(v, op->in[0]);
    const fl_tensor_t *w = tensor(v, op->in[1]);
    const fl_tensor_t *y = tensor(v, op->out[0]);
    int err = check_weights(v, op, 4, 0);
    if (err) {
        return err;
    }
    if (w->shape[0] != y->shape[3] || w->shape[1] != op->p.conv.kernel_h || w->shape[2] != op->p.conv.kernel_w ||
        w->shape[3] != x->shape[3] || op->p.conv.depth_multiplier != 1) {
        return FL_EBADMSG;
    }
    return check_window(x, y, &op->p.conv);
}

static int check_depthwise(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = tensor(v, op->in[0]);
    const fl_tensor_t *w = tensor(v, op->in[1]);
    const fl_tensor_t *y = tensor(v, op->out[0]);
    int err = check_weights(v, op, 4, 3);
    if (err) {
        return err;
    }
    if (w->shape[0] != 1 || w->shape[1] != op->p.conv.kernel_h || w->shape[2] != op->p.conv.kernel_w ||
        w->shape[3] != y->shape[3] || op->p.conv.depth_multiplier < 1 ||
        (int64_t)x->shape[3] * op->p.conv.depth_multiplier != y->shape[3]) {
        return FL_EBADMSG;
    }
    return check_window(x, y, &op->p.conv);
}

static int check_fully_connected(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *w = tensor(v, op->in[1]);
    int err = check_weights(v, op, 2, 0);
    if (err) {
        return err;
    }
    const uint32_t rows = (uint32_t)w->shape[0];
    const uint32_t cols = (uint32_t)w->shape[1];
    const uint32_t in = fl_elements(tensor(v, op->in[0]));
    if (in % cols != 0 || (uint64_t)(in / cols) * rows != fl_elements(tensor(v, op->out[0]))) {
        return FL_EBADMSG;
    }
    return FL_OK;
}

static int64_t lesser(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int check_pool(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = tensor(v, op->in[0]);
    const fl_tensor_t *y = tensor(v, op->out[0]);
    const fl_conv_params_t *p = &op->p.conv;
    int err = check_window(x, y, p);
    if (err) {
        return err;
    }
    if (x->shape[3] != y->shape[3] || p->dilation_h != 1 || p->dilation_w != 1 || p->depth_multiplier != 1 ||
        !same_quantisation(x, y)) {
        return FL_EBADMSG;
    }
    // every window touches the map
    if (p->pad_top >= p->kernel_h || p->pad_left >= p->kernel_w ||
        (int64_t)(y->shape[1] - 1) * p->stride_h - p->pad_top >= x->shape[1] ||
        (int64_t)(y->shape[2] - 1) * p->stride_w - p->pad_left >= x->shape[2]) {
        return FL_EBADMSG;
    }
    int64_t taps = lesser(p->kernel_h, x->shape[1]) * lesser(p->kernel_w, x->shape[2]);
    return taps <= MAX_POOL_TAPS ? FL_OK : FL_ENOTSUP;
}

static int check_add(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *a = tensor(v, op->in[0]);
    const fl_tensor_t *b = tensor(v, op->in[1]);
    const fl_add_params_t *p = &op->p.add;
    if (b->dtype != FL_I8) {
        return FL_ENOTSUP;
    }
    if (b->channel_scales || !same_shape(a, b) || !same_shape(a, tensor(v, op->out[0]))) {
        return FL_EBADMSG;
    }
    // no factor is above 1: the sums stay far inside 32 bits
    if (p->left_shift < 0 || p->left_shift > MAX_ADD_SHIFT || !is_factor(p->a) || !is_factor(p->b) ||
        !is_factor(p->out) || p->a.shift > 0 || p->b.shift > 0 || p->out.shift > 0) {
        return FL_EBADMSG;
    }
    return FL_OK;
}

static int check_softmax(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = tensor(v, op->in[0]);
    const fl_tensor_t *y = tensor(v, op->out[0]);
    const fl_softmax_params_t *p = &op->p.softmax;
    if (!same_shape(x, y) || y->scale != 1.0f / 256.0f || y->zero_point != -128) {
        return FL_EBADMSG;
    }
    if (x->shape[x->ndim - 1] > FL_SOFTMAX_MAX_COLS) {
        return FL_ENOTSUP;
    }
    if (p->input_multiplier < 1 << 30 || p->input_left_shift < 0 || p->input_left_shift > 31 || p->diff_min > 0) {
        return FL_EBADMSG;
    }
    // the largest difference that still contributes must stay in Q5.26: above -32
    int64_t reach = lesser(-(int64_t)p->diff_min, 255) << p->input_left_shift;
    return reach <= (int64_t)31 << 26 ? FL_OK : FL_EBADMSG;
}

static int check_reshape(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = tensor(v, op->in[0]);
    const fl_tensor_t *y = tensor(v, op->out[0]);
    return x->bytes == y->bytes && same_quantisation(x, y) ? FL_OK : FL_EBADMSG;
}

static int check_by_kind(const fl_view_t *v, const fl_op_t *op) {
    switch (op->opcode) {
    case FL_OP_CONV2D:
        return check_conv2d(v, op);
    case FL_OP_DEPTHWISE_CONV2D:
        return check_depthwise(v, op);
    case FL_OP_FULLY_CONNECTED:
        return check_fully_connected(v, op);
    case FL_OP_MAX_POOL:
    case FL_OP_AVG_POOL:
        return check_pool(v, op);
    case FL_OP_ADD:
        return check_add(v, op);
    case FL_OP_SOFTMAX:
        return check_softmax(v, op);
    default:
        return check_reshape(v, op);
    }
}

int fl_check_op(const fl_view_t *v, const fl_op_t *op) {
    if (op->opcode == 0 || op->opcode > FL_OP_RESHAPE || op->flags != 0) {
        return FL_ENOTSUP;
    }
    const int weighted = fl_is_weighted(op->opcode);
    const uint32_t needed = weighted || op->opcode == FL_OP_ADD ? 2 : 1;
    int err = check_inputs(v, op, weighted ? 4 : needed, needed);
    if (err) {
        return err;
    }
    if (op->act_min < -128 || op->act_min > op->act_max || op->act_max > 127) {
        return FL_EBADMSG;
    }
    if (!weighted && (op->requant != 0 || op->requant_count != 0)) {
        return FL_EBADMSG;
    }
    return check_by_kind(v, op);
}
