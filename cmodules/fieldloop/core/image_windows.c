// Operators with weights, and pools: that shapes, factors and windows fit together.
#include "core/image_checks.h"

enum {
    MAX_PAD = 32767,          // below or right of the map, too
    MAX_POOL_TAPS = 1 << 23,  // what a 32-bit sum of int8 can hold
};

static int check_requant(const fl_view_t *v, const fl_op_t *op, uint32_t channels) {
    if ((op->requant_count != 1 && op->requant_count != channels) ||
        !fl_in_data(v, op->requant, (uint64_t)op->requant_count * sizeof(fl_requant_t), sizeof(int32_t))) {
        return FL_EBADMSG;
    }
    const fl_requant_t *requant = (const fl_requant_t *)fl_at(v, op->requant);
    for (uint32_t i = 0; i < op->requant_count; i++) {
        if (!fl_is_factor(requant[i])) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}

// A constant of one number a channel.
static int check_bias(const fl_view_t *v, uint32_t index, uint32_t dtype, uint32_t channels) {
    if (index == FL_NO_TENSOR) {
        return FL_OK;
    }
    const fl_tensor_t *b = fl_tensor_of(v, index);
    if (b->dtype != dtype) {
        return FL_ENOTSUP;
    }
    return b->kind == FL_CONSTANT && fl_elements(b) == channels ? FL_OK : FL_EBADMSG;
}

// Weights: a constant of x's dtype and `ndim` dimensions; int8 with one scale or one a channel. Biases fit.
static int check_weights(const fl_view_t *v, const fl_op_t *op, uint32_t ndim, uint32_t channel_axis) {
    const fl_tensor_t *w = fl_tensor_of(v, op->in[1]);
    const int is_float = fl_tensor_of(v, op->in[0])->dtype == FL_F32;
    if (w->dtype != (is_float ? FL_F32 : FL_I8)) {
        return FL_ENOTSUP;
    }
    if (w->kind != FL_CONSTANT || w->ndim != ndim) {
        return FL_EBADMSG;
    }
    const uint32_t channels = (uint32_t)w->shape[channel_axis];
    if (w->channel_scales && (is_float || w->channel_count != channels)) {
        return FL_EBADMSG;
    }
    int err = check_bias(v, op->in[2], is_float ? FL_F32 : FL_I32, channels);
    if (err || is_float) {
        return err ? err : op->in[3] == FL_NO_TENSOR ? FL_OK : FL_EBADMSG;
    }
    // the folded bias: no other dtype would mean anything
    return check_bias(v, op->in[3], FL_I32, channels) ? FL_EBADMSG : check_requant(v, op, channels);
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

int fl_check_conv2d(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = fl_tensor_of(v, op->in[0]);
    const fl_tensor_t *w = fl_tensor_of(v, op->in[1]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    int err = check_weights(v, op, 4, 0);
    if (err) {
        return err;
    }
    const int32_t groups = op->p.conv.groups ? op->p.conv.groups : 1;
    if (w->shape[0] != y->shape[3] || w->shape[1] != op->p.conv.kernel_h || w->shape[2] != op->p.conv.kernel_w ||
        (int64_t)w->shape[3] * groups != x->shape[3] || y->shape[3] % groups != 0 || op->p.conv.depth_multiplier != 1) {
        return FL_EBADMSG;
    }
    return check_window(x, y, &op->p.conv);
}

int fl_check_depthwise(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = fl_tensor_of(v, op->in[0]);
    const fl_tensor_t *w = fl_tensor_of(v, op->in[1]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    int err = check_weights(v, op, 4, 3);
    if (err) {
        return err;
    }
    if (w->shape[0] != 1 || w->shape[1] != op->p.conv.kernel_h || w->shape[2] != op->p.conv.kernel_w ||
        w->shape[3] != y->shape[3] || op->p.conv.depth_multiplier < 1 || op->p.conv.groups > 1 ||
        (int64_t)x->shape[3] * op->p.conv.depth_multiplier != y->shape[3]) {
        return FL_EBADMSG;
    }
    return check_window(x, y, &op->p.conv);
}

int fl_check_fully_connected(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *w = fl_tensor_of(v, op->in[1]);
    int err = check_weights(v, op, 2, 0);
    if (err) {
        return err;
    }
    const uint32_t rows = (uint32_t)w->shape[0];
    const uint32_t cols = (uint32_t)w->shape[1];
    const uint32_t in = fl_elements(fl_tensor_of(v, op->in[0]));
    if (in % cols != 0 || (uint64_t)(in / cols) * rows != fl_elements(fl_tensor_of(v, op->out[0]))) {
        return FL_EBADMSG;
    }
    return FL_OK;
}

static int64_t lesser(int64_t a, int64_t b) {
    return a < b ? a : b;
}

int fl_check_pool(const fl_view_t *v, const fl_op_t *op) {
    const fl_tensor_t *x = fl_tensor_of(v, op->in[0]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    const fl_conv_params_t *p = &op->p.conv;
    int err = check_window(x, y, p);
    if (err) {
        return err;
    }
    if (x->shape[3] != y->shape[3] || p->dilation_h != 1 || p->dilation_w != 1 || p->depth_multiplier != 1 ||
        p->groups > 1 || !fl_same_quantisation(x, y)) {
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
