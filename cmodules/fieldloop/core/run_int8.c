// Operators on int8.
#include "core/image.h"
#include "core/run.h"

fl_quant_t fl_quant_of(const fl_model_t *m, uint32_t index) {
    const fl_op_t *op = &m->ops[index];
    return (fl_quant_t){
        .x_zero = m->tensors[op->in[0]].zero_point,
        .out_zero = m->tensors[op->out[0]].zero_point,
        .act_min = op->act_min,
        .act_max = op->act_max,
        .requant = (const fl_requant_t *)(const void *)(m->image + op->requant),
        .requant_stride = op->requant_count > 1,
        .w_zero = m->tensors[op->in[1]].zero_point,
        .folded = fl_model_folded_bias(m, index),
        .flags = op->flags,
    };
}

fl_mean_quant_t fl_mean_quant_of(const fl_model_t *m, const fl_op_t *op) {
    return (fl_mean_quant_t){
        .x_zero = m->tensors[op->in[0]].zero_point,
        .out_zero = m->tensors[op->out[0]].zero_point,
        .act_min = op->act_min,
        .act_max = op->act_max,
    };
}

static void run_weighted(const fl_model_t *m, uint32_t index) {
    const fl_op_t *op = &m->ops[index];
    const fl_tensor_t *x = &m->tensors[op->in[0]];
    const fl_tensor_t *w = &m->tensors[op->in[1]];
    const fl_tensor_t *y = &m->tensors[op->out[0]];
    const fl_map_dims_t d = fl_map_dims(x, y);
    const fl_quant_t q = fl_quant_of(m, index);
    const int8_t *in = fl_model_tensor(m, op->in[0]);
    const int8_t *weights = fl_model_weights(m, index);
    const int32_t *bias = fl_model_bias(m, index);
    int8_t *out = fl_run_out(m, op);
    if (op->opcode == FL_OP_CONV2D) {
        fl_conv2d(&op->p.conv, &q, &d, in, weights, bias, m->scratch, out);
    } else if (op->opcode == FL_OP_DEPTHWISE_CONV2D) {
        fl_depthwise_conv2d(&op->p.conv, &q, &d, in, weights, bias, m->scratch, out);
    } else {
        const int32_t cols = w->shape[1];
        fl_fully_connected(&q, (int32_t)x->bytes / cols, w->shape[0], cols, in, weights, bias, m->scratch, out);
    }
}

static void run_embedding(const fl_model_t *m, const fl_op_t *op) {
    const fl_tensor_t *index = &m->tensors[op->in[0]];
    const fl_tensor_t *table = &m->tensors[op->in[1]];
    const int32_t entries = table->shape[0];
    fl_embedding(entries, table->bytes / (uint32_t)entries, fl_dtype_bytes(index->dtype), (int32_t)fl_elements(index),
                 fl_model_tensor(m, op->in[0]), fl_model_tensor(m, op->in[1]), fl_run_out(m, op));
}

void fl_run_int8(const fl_model_t *m, uint32_t index) {
    const fl_op_t *op = &m->ops[index];
    const fl_tensor_t *x = &m->tensors[op->in[0]];
    const fl_tensor_t *y = &m->tensors[op->out[0]];
    const fl_map_dims_t d = fl_map_dims(x, y);
    const int32_t n = (int32_t)fl_elements(x);
    const void *in = fl_model_tensor(m, op->in[0]);
    void *out = fl_run_out(m, op);
    switch (op->opcode) {
    case FL_OP_CONV2D:
    case FL_OP_DEPTHWISE_CONV2D:
    case FL_OP_FULLY_CONNECTED:
        run_weighted(m, index);
        break;
    case FL_OP_MAX_POOL:
        fl_max_pool(&op->p.conv, op->act_min, op->act_max, &d, in, out);
        break;
    case FL_OP_AVG_POOL:
        fl_avg_pool(&op->p.conv, op->act_min, op->act_max, &d, in, out);
        break;
    case FL_OP_SOFTMAX: {
        const int32_t cols = x->shape[x->ndim - 1];
        fl_softmax(&op->p.softmax, n / cols, cols, in, out);
        break;
    }
    case FL_OP_MEAN: {
        const fl_mean_quant_t q = fl_mean_quant_of(m, op);
        fl_mean(&op->p.mean, &q, x->shape, in, out);
        break;
    }
    case FL_OP_EMBEDDING:
        run_embedding(m, op);
        break;
    default:
        fl_run_elements(m, op);
        break;
    }
}
