// The walk back: from the delta of the logits through every operator to the lowest trained layer. Each layer chooses
// its kept entries, hands its delta down with the old weights, and only then moves its weights.
#include "learner.h"

typedef struct {
    float *delta;           // of the operator's output, [outputs]
    uint32_t outputs;
    int at_start;           // which end of the delta area it lies at
    const uint16_t *kept;   // NULL: all
    uint32_t count;
} fl_walk_t;

// The other end of the delta area, for `n` entries.
static float *opposite(const fl_learner_t *l, int at_start, uint32_t n) {
    float *area = (float *)(void *)l->deltas;
    return at_start ? area + (l->delta_bytes / sizeof(float) - n) : area;
}

// Chooses the layer's kept entries into the right-aligned list.
static uint16_t *choose(fl_learner_t *l, uint32_t layer_index, float error, fl_walk_t *at) {
    const fl_learner_config_t *c = &l->config;
    const fl_layer_t *layer = &l->layers[layer_index];
    at->kept = NULL;
    at->count = layer->outputs;
    if (c->selector == FL_SELECT_DENSE) {
        return NULL;
    }
    uint32_t k = layer->keep_max;
    if (c->selector != FL_SELECT_TOPK) {
        float alpha;
        if (layer->op == l->last_op) {
            // the decision has raised the output's maximum already
            alpha = l->y_max[0] > 0.0f ? error / l->y_max[0] : 0.0f;
        } else {
            uint32_t slot = layer_index + (l->y_max_count - l->layer_count);
            alpha = fl_propagation_rate(fl_l1_norm(at->delta, layer->outputs), &l->y_max[slot], c->rho);
        }
        fl_ratio_t ratio = {c->s_min, c->s_max, c->zeta, c->k_rule};
        k = fl_keep_count(&ratio, alpha, layer->distance, layer->outputs);
    }
    uint16_t *list = l->kept_end - k;
    fl_top_k(at->delta, layer->outputs, k, list);
    at->kept = list;
    at->count = k;
    return list;
}

// Delta of the operator's input, before the mask of what made that input.
static void propagate(const fl_model_t *m, uint32_t op_index, const fl_walk_t *at, float *delta_in) {
    const fl_op_t *op = &m->ops[op_index];
    fl_map_dims_t d = fl_learner_dims(m, op);
    switch (op->opcode) {
    case FL_OP_MAX_POOL:
        fl_backward_max_pool(&op->p.conv, &d, fl_model_tensor(m, op->in[0]), at->delta, delta_in);
        return;
    case FL_OP_AVG_POOL:
        fl_backward_avg_pool(&op->p.conv, &d, at->delta, delta_in);
        return;
    default:
        break;
    }
    const int8_t *w = fl_model_weights(m, op_index);
    fl_row_scales_t scales = fl_weight_scales(m, op);
    switch (op->opcode) {
    case FL_OP_FULLY_CONNECTED:
        fl_backward_fully_connected_input(at->delta, at->kept, at->count, w, &scales,
                                          (uint32_t)m->tensors[op->in[1]].shape[1], delta_in);
        return;
    case FL_OP_CONV2D:
        fl_backward_conv2d_input(&op->p.conv, &d, at->delta, at->kept, at->count, w, &scales, delta_in);
        return;
    default:  // FL_OP_DEPTHWISE_CONV2D: the layout has refused everything else
        fl_backward_depthwise_conv2d_input(&op->p.conv, &d, at->delta, at->kept, at->count, w, &scales, delta_in);
        return;
    }
}

// The clamp folded into the operator that made `q`. A pool without a clamp of its own passes everything.
static void mask(const fl_model_t *m, uint32_t op_index, float *delta, uint32_t n) {
    const fl_op_t *op = &m->ops[op_index];
    int is_pool = op->opcode == FL_OP_MAX_POOL || op->opcode == FL_OP_AVG_POOL;
    if (op->opcode == FL_OP_RESHAPE || (is_pool && op->act_min == INT8_MIN && op->act_max == INT8_MAX)) {
        return;
    }
    fl_backward_activation(fl_model_tensor(m, op->out[0]), n, op->act_min, op->act_max, delta);
}

static void update(fl_learner_t *l, uint32_t layer_index, const fl_walk_t *at, uint16_t *list) {
    const fl_model_t *m = l->model;
    const fl_layer_t *layer = &l->layers[layer_index];
    const fl_op_t *op = &m->ops[layer->op];
    const fl_state_header_t *state = fl_state(l);
    const int8_t *x = fl_model_tensor(m, op->in[0]);
    uint32_t positions = layer->outputs / layer->rows;
    fl_update_t u = {
        .lr = layer->lr,
        .x_scale = layer->x_scale,
        .x_zero = layer->x_zero,
        .w_scale = {layer->w_scale, layer->w_scale_stride},
        .key = fl_random_key(state->seed, state->step, layer->op),
    };
    if (list) {
        fl_group_by_channel(list, at->count, positions, layer->rows);
    }
    if (op->opcode == FL_OP_FULLY_CONNECTED) {
        fl_update_fully_connected(&u, at->delta, list, at->count, x, layer->row_bytes, layer->w);
    } else {
        fl_map_dims_t d = fl_learner_dims(m, op);
        float *row = (float *)(void *)(l->deltas + l->delta_bytes);
        if (op->opcode == FL_OP_CONV2D) {
            fl_update_conv2d(&u, &op->p.conv, &d, at->delta, list, at->count, x, row, layer->w);
        } else {
            fl_update_depthwise_conv2d(&u, &op->p.conv, &d, at->delta, list, at->count, x, row, layer->w);
        }
    }
    if (layer->b) {
        const uint16_t *of_bias = l->config.bias_mode == FL_BIAS_DENSE ? NULL : list;
        fl_update_bias(&u, at->delta, of_bias, at->count, positions, layer->rows, layer->rows * layer->row_bytes,
                       layer->b);
    }
}

uint32_t fl_learner_backward(fl_learner_t *l, float error) {
    const fl_model_t *m = l->model;
    fl_state_header_t *state = fl_state(l);
    fl_walk_t at = {(float *)(void *)l->deltas, l->classes, 1, NULL, l->classes};
    uint32_t op_index = l->last_op;
    uint32_t layer_index = 0;
    uint32_t kept = 0;
    for (;;) {
        const fl_op_t *op = &m->ops[op_index];
        const fl_layer_t *layer = l->layers[layer_index].op == op_index ? &l->layers[layer_index] : NULL;
        uint16_t *list = NULL;
        at.kept = NULL;
        at.count = at.outputs;
        if (layer) {
            list = choose(l, layer_index, error, &at);
            kept += at.count;
            state->stats.backward_macs += (uint64_t)at.count * layer->row_bytes;
        }
        int is_lowest = layer && layer_index + 1 == l->layer_count;
        uint32_t inputs = m->tensors[op->in[0]].bytes;
        float *delta_in = at.delta;
        if (!is_lowest && op->opcode != FL_OP_RESHAPE) {
            delta_in = opposite(l, at.at_start, inputs);
            propagate(m, op_index, &at, delta_in);
            at.at_start = !at.at_start;
            if (fl_has_weights(op)) {
                state->stats.backward_macs += (uint64_t)at.count * fl_row_bytes(m, op);
            }
        }
        if (layer) {
            update(l, layer_index, &at, list);
            layer_index++;
            if (is_lowest) {
                return kept;
            }
        }
        op_index = (uint32_t)fl_learner_producer(m, op->in[0], op_index);
        at.delta = delta_in;
        at.outputs = inputs;
        mask(m, op_index, at.delta, at.outputs);
    }
}
