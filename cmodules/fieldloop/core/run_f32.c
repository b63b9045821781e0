// Operators on f32.
#include <string.h>

#include "core/image.h"
#include "core/run.h"
#include "fieldloop/fl_kernels_f32.h"

float fl_float_of(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void fl_run_f32(const fl_model_t *m, const fl_op_t *op) {
    const fl_tensor_t *x = &m->tensors[op->in[0]];
    const fl_tensor_t *y = &m->tensors[op->out[0]];
    const fl_map_dims_t d = fl_map_dims(x, y);
    const float lo = fl_float_of(op->act_min);
    const float hi = fl_float_of(op->act_max);
    const float *in = fl_model_tensor(m, op->in[0]);
    const float *second = op->in[1] == FL_NO_TENSOR ? NULL : fl_model_tensor(m, op->in[1]);
    const float *bias = op->in[2] == FL_NO_TENSOR ? NULL : fl_model_tensor(m, op->in[2]);
    float *out = fl_run_out(m, op);
    switch (op->opcode) {
    case FL_OP_CONV2D:
        fl_conv2d_f32(&op->p.conv, lo, hi, &d, in, second, bias, out);
        break;
    case FL_OP_DEPTHWISE_CONV2D:
        fl_depthwise_conv2d_f32(&op->p.conv, lo, hi, &d, in, second, bias, out);
        break;
    case FL_OP_FULLY_CONNECTED: {
        const fl_tensor_t *w = &m->tensors[op->in[1]];
        const int32_t batch = (int32_t)fl_elements(x) / w->shape[1];
        fl_fully_connected_f32(lo, hi, batch, w->shape[0], w->shape[1], in, second, bias, out);
        break;
    }
    case FL_OP_MAX_POOL:
        fl_max_pool_f32(&op->p.conv, lo, hi, &d, in, out);
        break;
    case FL_OP_AVG_POOL:
        fl_avg_pool_f32(&op->p.conv, lo, hi, &d, in, out);
        break;
    case FL_OP_SOFTMAX: {
        const int32_t cols = x->shape[x->ndim - 1];
        fl_softmax_f32((int32_t)fl_elements(x) / cols, cols, in, out);
        break;
    }
    case FL_OP_MEAN:
        fl_mean_f32(op->p.mean.axes, lo, hi, x->shape, in, out);
        break;
    default:
        fl_run_elements(m, op);
        break;
    }
}
