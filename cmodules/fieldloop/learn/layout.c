// Which layers train, what they need, and whether the way back to them can be walked at all.
#include <string.h>

#include "core/image.h"
#include "fieldloop/fl_error.h"
#include "learner.h"

// Deltas stay below this, so that a convolution row (65 535 products of 255) stays finite too.
#define DELTA_LIMIT 1e30f

static int is_finite(float v) {
    return v - v == 0.0f;
}

int32_t fl_learner_producer(const fl_model_t *m, uint32_t t, uint32_t before) {
    while (before-- > 0) {
        if (m->ops[before].out[0] == t) {
            return (int32_t)before;
        }
    }
    return -1;
}

static uint32_t consumers(const fl_model_t *m, uint32_t t) {
    uint32_t count = 0;
    for (uint32_t op = 0; op < m->op_count; op++) {
        for (uint32_t i = 0; i < fl_op_places(&m->ops[op]); i++) {
            count += fl_op_input(&m->ops[op], i) == t;
        }
    }
    return count;
}

static uint32_t elements(const fl_tensor_t *t) {
    uint32_t count = 1;
    for (uint32_t i = 0; i < t->ndim; i++) {
        count *= (uint32_t)t->shape[i];
    }
    return count;
}

fl_map_dims_t fl_learner_dims(const fl_model_t *m, const fl_op_t *op) {
    return fl_map_dims(&m->tensors[op->in[0]], &m->tensors[op->out[0]]);
}

// The backward kernels see one int8 sample, one group, and weights without a zero point.
static int has_way_back(const fl_model_t *m, const fl_op_t *op) {
    if (m->tensors[op->in[0]].dtype != FL_I8 || m->tensors[op->out[0]].dtype != FL_I8 ||
        (fl_has_weights(op) && m->tensors[op->in[1]].zero_point != 0) ||
        (op->opcode == FL_OP_CONV2D && op->p.conv.groups > 1)) {
        return 0;
    }
    switch (op->opcode) {
    case FL_OP_RESHAPE:
        return 1;
    case FL_OP_FULLY_CONNECTED:
        return elements(&m->tensors[op->in[0]]) == (uint32_t)m->tensors[op->in[1]].shape[1];
    case FL_OP_CONV2D:
    case FL_OP_DEPTHWISE_CONV2D:
    case FL_OP_MAX_POOL:
    case FL_OP_AVG_POOL:
        return m->tensors[op->in[0]].shape[0] == 1;
    default:
        return 0;
    }
}

// What the image says about the layer of operator `op`.
static int describe_layer(const fl_model_t *m, uint32_t op_index, const fl_learner_config_t *config, float lr_scale,
                          fl_layer_t *layer) {
    const fl_op_t *op = &m->ops[op_index];
    const fl_tensor_t *in = &m->tensors[op->in[0]];
    fl_row_scales_t scales = fl_weight_scales(m, op);
    layer->op = op_index;
    layer->rows = fl_output_channels(m, op);
    layer->row_bytes = fl_row_bytes(m, op);
    layer->outputs = elements(&m->tensors[op->out[0]]);
    layer->lr = config->lr * lr_scale;
    layer->x_scale = in->scale;
    layer->x_zero = in->zero_point;
    layer->w_scale = scales.scale;
    layer->w_scale_stride = scales.stride;
    if (layer->outputs > 65535 || layer->row_bytes > 65535) {
        return FL_ENOTSUP;
    }
    for (uint32_t i = 0; i < layer->rows; i++) {
        float scale = layer->w_scale[i * layer->w_scale_stride];
        // the factors of update.c: an infinite one could meet a zero and make a NaN
        if (!is_finite(layer->lr * layer->x_scale / scale) || !is_finite(layer->lr / (layer->x_scale * scale))) {
            return FL_ENOTSUP;
        }
    }
    return FL_OK;
}

// Largest factor by which the L1 norm of a delta can grow on its way through a layer's weights.
static float growth(const fl_model_t *m, const fl_op_t *op) {
    fl_row_scales_t scales = fl_weight_scales(m, op);
    uint32_t distinct = scales.stride ? fl_output_channels(m, op) : 1;
    float largest = 0.0f;
    for (uint32_t i = 0; i < distinct; i++) {
        largest = scales.scale[i] > largest ? scales.scale[i] : largest;
    }
    return largest * 128.0f * (float)fl_row_bytes(m, op);
}

static uint32_t most_kept(const fl_learner_config_t *c, uint32_t distance, uint32_t n) {
    if (c->selector == FL_SELECT_DENSE) {
        return 0;  // all of them need no list
    }
    fl_ratio_t ratio = {c->s_max, c->s_max, c->selector == FL_SELECT_TOPK ? 1.0f : c->zeta, c->k_rule};
    uint32_t k = fl_keep_count(&ratio, 1.0f, distance, n);
    if (c->selector == FL_SELECT_TOPK && distance == 0 && k < 2 && n >= 2) {
        k = 2;
    }
    return k;
}

// Finds the operator that makes the logits: what the output is, before reshapes and a softmax.
static int find_logits(const fl_model_t *m, fl_learner_t *l) {
    uint32_t t = m->io[m->input_count];
    int32_t op = fl_learner_producer(m, t, m->op_count);
    while (op >= 0 && (m->ops[op].opcode == FL_OP_SOFTMAX || m->ops[op].opcode == FL_OP_RESHAPE)) {
        t = m->ops[op].in[0];
        op = fl_learner_producer(m, t, (uint32_t)op);
    }
    if (op < 0 || m->tensors[t].dtype != FL_I8 || elements(&m->tensors[t]) > 65535) {
        return FL_ENOTSUP;
    }
    l->last_op = (uint32_t)op;
    l->classes = elements(&m->tensors[t]);
    return FL_OK;
}

// Walks from the logits to the lowest trained layer, fills l->layers and measures the scratch.
static int walk_back(const fl_model_t *m, fl_learner_t *l, const fl_trainable_t *trainables, uint32_t count) {
    uint32_t op_index = l->last_op;
    float l1_bound = 2.0f;
    uint64_t below = 0;  // bytes of the delta on the output side of the previous operator
    uint64_t pair = (uint64_t)l->classes * sizeof(float);
    for (;;) {
        const fl_op_t *op = &m->ops[op_index];
        uint64_t outputs = elements(&m->tensors[op->out[0]]);
        if (below + outputs * sizeof(float) > pair) {
            pair = below + outputs * sizeof(float);
        }
        if (!has_way_back(m, op)) {
            return FL_ENOTSUP;
        }
        uint32_t remaining = count - l->layer_count;
        if (trainables[remaining - 1].op == op_index) {
            fl_layer_t *layer = &l->layers[l->layer_count];
            int err = describe_layer(m, op_index, &l->config, trainables[remaining - 1].lr_scale, layer);
            if (err) {
                return err;
            }
            layer->distance = l->layer_count;
            layer->keep_max = most_kept(&l->config, layer->distance, layer->outputs);
            l->keep_max = layer->keep_max > l->keep_max ? layer->keep_max : l->keep_max;
            if (op->opcode != FL_OP_FULLY_CONNECTED && layer->row_bytes * sizeof(float) > l->row_bytes) {
                l->row_bytes = layer->row_bytes * (uint32_t)sizeof(float);
            }
            l->dense_macs += (uint64_t)layer->outputs * layer->row_bytes;
            l->layer_count++;
            if (remaining == 1) {
                break;
            }
        }
        if (fl_has_weights(op)) {
            l->dense_macs += outputs * fl_row_bytes(m, op);
            l1_bound = l1_bound * growth(m, op);
            if (!(l1_bound < DELTA_LIMIT)) {
                return FL_ENOTSUP;
            }
        }
        int32_t producer = fl_learner_producer(m, op->in[0], op_index);
        if (producer < 0 || consumers(m, op->in[0]) != 1) {
            return FL_ENOTSUP;  // a trainable layer that is not on the path, or a branch
        }
        below = op->opcode == FL_OP_RESHAPE ? below : outputs * sizeof(float);
        op_index = (uint32_t)producer;
    }
    if (pair > UINT32_MAX) {
        return FL_ENOTSUP;
    }
    l->delta_bytes = (uint32_t)pair;
    return FL_OK;
}

static void find_rehearsal_set(const fl_model_t *m, fl_learner_t *l) {
    uint32_t cursor = 0;
    uint32_t bytes;
    const void *data;
    if (fl_image_section(m->image, FL_SECTION_REHEARSAL, &cursor, &data, &bytes) != FL_OK) {
        return;
    }
    const fl_rehearsal_set_t *set = data;
    l->rehearsal_count = set->count;
    l->rehearsal_labels = (const uint8_t *)(set + 1);
    l->rehearsal_samples = (const int8_t *)(l->rehearsal_labels + (((size_t)set->count + 15) & ~(size_t)15));
}

int fl_learner_layout(const fl_model_t *m, const fl_learner_config_t *config, fl_learner_t *l) {
    if (fl_learner_complaint(config)) {
        return FL_EINVAL;
    }
    int err;
    uint32_t cursor = 0;
    uint32_t bytes;
    const void *data;
    if (fl_image_section(m->image, FL_SECTION_LEARN, &cursor, &data, &bytes) != FL_OK || bytes < sizeof(fl_trainable_t)) {
        return FL_ENOENT;
    }
    const fl_trainable_t *trainables = data;
    uint32_t available = bytes / (uint32_t)sizeof(fl_trainable_t);
    uint32_t count = config->layers ? config->layers : available;
    if (count > available) {
        return FL_EINVAL;
    }
    if (count > FL_MAX_TRAINABLE || m->input_count != 1 || m->output_count < 1 ||
        m->tensors[m->io[0]].dtype != FL_I8) {
        return FL_ENOTSUP;
    }
    memset(l, 0, sizeof *l);
    l->config = *config;
    l->sample_bytes = m->tensors[m->io[0]].bytes;
    err = find_logits(m, l);
    if (!err) {
        err = walk_back(m, l, trainables + (available - count), count);
    }
    if (err) {
        return err;
    }
    find_rehearsal_set(m, l);
    for (uint32_t op = 0; op <= l->last_op; op++) {
        l->forward_macs += fl_model_op_macs(m, op);
    }
    l->y_max_count = l->layer_count + (l->layers[0].op == l->last_op ? 0u : 1u);
    return fl_learner_measure(m, l);
}

int fl_learner_sizes(const fl_model_t *m, const fl_learner_config_t *config, fl_learner_sizes_t *sizes) {
    fl_learner_t l;
    int err = fl_learner_layout(m, config, &l);
    if (!err) {
        *sizes = l.sizes;
    }
    return err;
}
