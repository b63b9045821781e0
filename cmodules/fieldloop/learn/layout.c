// Which layers train, what they need, and whether the way back to them can be walked at all.
#include <string.h>

#include "core/image.h"
#include "fieldloop/fl_error.h"
#include "learner.h"

// Deltas stay below this, so that a convolution row (65 535 products of 255) stays finite too: also where a batch or a moment
// adds up many of them.
static float delta_limit(const fl_learner_config_t *c) {
    float limit = 1e30f / (float)c->batch;
    return c->optimizer == FL_OPTIMIZER_MOMENTUM ? limit * (1.0f - c->beta1) : limit;
}

fl_map_dims_t fl_learner_dims(const fl_model_t *m, const fl_op_t *op) {
    return fl_map_dims(&m->tensors[op->in[0]], &m->tensors[op->out[0]]);
}

// Operators with a pool fused into them make the delta of its output.
static uint32_t positions_of_a_window(const fl_model_t *m, const fl_learner_t *l, const fl_hop_t *step) {
    if (step->pool == FL_NONE) {
        return 1;
    }
    const fl_op_t *pool = &m->ops[l->way[step->pool].op];
    const fl_tensor_t *x = &m->tensors[pool->in[0]];
    if (pool->opcode != FL_OP_AVG_POOL) {
        return 1;
    }
    uint32_t h = pool->p.conv.kernel_h < x->shape[1] ? pool->p.conv.kernel_h : (uint32_t)x->shape[1];
    uint32_t w = pool->p.conv.kernel_w < x->shape[2] ? pool->p.conv.kernel_w : (uint32_t)x->shape[2];
    return h * w;
}

// Multiply-accumulates of one entry of a weighted operator's delta, of its update or of its propagation.
uint64_t fl_learner_entry_macs(const fl_model_t *m, const fl_learner_t *l, const fl_hop_t *step) {
    return (uint64_t)fl_row_bytes(m, &m->ops[step->op]) * positions_of_a_window(m, l, step);
}

// The factors of the step rules: an infinite one could meet a zero and make a NaN.
static int has_finite_factors(const fl_layer_t *layer) {
    for (uint32_t i = 0; i < layer->rows; i++) {
        float scale = layer->w_scale[i * layer->w_scale_stride];
        if (!fl_is_finite(layer->lr * layer->x_scale / scale) || !fl_is_finite(layer->lr / (layer->x_scale * scale)) ||
            !fl_is_finite(layer->lr / scale)) {
            return 0;
        }
    }
    return 1;
}

// What the image says about the layer of a step of the way.
static int describe_layer(const fl_model_t *m, fl_learner_t *l, const fl_hop_t *step, float lr_scale) {
    const fl_learner_config_t *c = &l->config;
    const fl_op_t *op = &m->ops[step->op];
    const fl_tensor_t *in = &m->tensors[op->in[0]];
    fl_row_scales_t scales = fl_weight_scales(m, op);
    fl_layer_t *layer = &l->layers[step->layer];
    layer->op = step->op;
    layer->rows = fl_output_channels(m, op);
    layer->row_bytes = fl_row_bytes(m, op);
    layer->outputs = l->delta[step->delta].words;
    layer->distance = step->layer;
    layer->optimizer = c->optimizer == FL_OPTIMIZER_ADAM && step->layer > 0 ? FL_OPTIMIZER_SGD : c->optimizer;
    layer->propagates = step->to[0] != FL_NONE;
    layer->entry_macs = fl_learner_entry_macs(m, l, step);
    layer->lr = c->lr * lr_scale;
    layer->x_scale = in->scale;
    layer->x_zero = in->zero_point;
    layer->w_scale = scales.scale;
    layer->w_scale_stride = scales.stride;
    if (layer->outputs > 65535 || layer->row_bytes > 65535 || !has_finite_factors(layer)) {
        return FL_ENOTSUP;
    }
    uint32_t n = c->unit == FL_UNIT_CHANNEL ? layer->rows : layer->outputs;
    layer->keep_max = fl_learner_keep_max(c, layer, n);
    return FL_OK;
}

static uint32_t most(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

// Entries of the list that a layer has use for: none where all are kept. What does not fit is set to zero instead, where nobody
// asks for it again.
static uint32_t list_entries(const fl_learner_config_t *c, const fl_layer_t *layer) {
    if (c->selector == FL_SELECT_MASK) {
        return layer->keep_max;
    }
    uint32_t n = c->unit == FL_UNIT_CHANNEL ? layer->rows : layer->outputs;
    uint32_t least = fl_learner_keep_least(c, layer, n);
    if (least == n) {
        return 0;
    }
    if (c->unit == FL_UNIT_CHANNEL || c->bias_mode == FL_BIAS_DENSE || c->search == FL_SEARCH_HEAP) {
        return layer->keep_max;
    }
    uint32_t cap = most(layer->outputs / FL_LISTED_PART, FL_LISTED_LEAST);
    if (least > cap) {
        return 0;
    }
    return layer->keep_max < cap ? layer->keep_max : cap;
}

static uint32_t row_words(const fl_model_t *m, const fl_learner_config_t *c, const fl_layer_t *layer) {
    int is_map = m->ops[layer->op].opcode != FL_OP_FULLY_CONNECTED;
    uint32_t words = is_map || c->batch > 1 || layer->optimizer != FL_OPTIMIZER_SGD ? layer->row_bytes : 0;
    int ranks_channels = c->unit == FL_UNIT_CHANNEL || c->selector == FL_SELECT_MASK;
    return ranks_channels ? most(words, layer->rows) : words;
}

// Rows of which a batch can hold a gradient at once.
static uint32_t slot_count(const fl_model_t *m, const fl_learner_config_t *c, const fl_layer_t *layer) {
    if (c->batch == 1) {
        return 0;
    }
    int has_bias = m->ops[layer->op].in[2] != FL_NO_TENSOR;
    uint32_t rows = c->selector == FL_SELECT_DENSE || (has_bias && c->bias_mode == FL_BIAS_DENSE) ? layer->rows
                                                                                                  : layer->keep_max;
    uint64_t all = (uint64_t)rows * c->batch;
    return all < layer->rows ? (uint32_t)all : layer->rows;
}

// Finds the operator that makes the logits: what the output is, before reshapes and a softmax.
static int find_logits(const fl_model_t *m, fl_learner_t *l) {
    uint32_t t = m->io[m->input_count];
    int32_t op = fl_learner_producer(m, t, m->op_count);
    while (op >= 0 && (m->ops[op].opcode == FL_OP_SOFTMAX || m->ops[op].opcode == FL_OP_RESHAPE)) {
        t = m->ops[op].in[0];
        op = fl_learner_producer(m, t, (uint32_t)op);
    }
    if (op < 0 || m->tensors[t].dtype != FL_I8 || fl_elements(&m->tensors[t]) > 65535) {
        return FL_ENOTSUP;
    }
    l->last_op = (uint32_t)op;
    l->classes = fl_elements(&m->tensors[t]);
    return FL_OK;
}

// Everything about the layers on the way, and what they need of the scratch.
static int describe_layers(const fl_model_t *m, fl_learner_t *l, const fl_trainable_t *trained) {
    uint64_t trained_macs = 0;
    for (uint32_t at = 0; at < l->way_count; at++) {
        const fl_hop_t *step = &l->way[at];
        if (!fl_has_weights(&m->ops[step->op])) {
            continue;
        }
        uint32_t passes = step->to[0] != FL_NONE;
        if (step->layer != FL_NONE) {
            int err = describe_layer(m, l, step, trained[l->layer_count - 1 - step->layer].lr_scale);
            if (err) {
                return err;
            }
            fl_layer_t *layer = &l->layers[step->layer];
            l->list_room = most(l->list_room, list_entries(&l->config, layer));
            l->row_words = most(l->row_words, row_words(m, &l->config, layer));
            layer->slot_count = slot_count(m, &l->config, layer);
            passes++;
            trained_macs += passes * layer->outputs * layer->entry_macs;
        }
        l->dense_macs += passes * (uint64_t)l->delta[step->delta].words * fl_learner_entry_macs(m, l, step);
    }
    // what fl_allot can share out
    return l->config.selector == FL_SELECT_BUDGET && trained_macs >> 49 ? FL_ENOTSUP : FL_OK;
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
        err = fl_learner_way(m, l, trainables + (available - count), count, delta_limit(config));
    }
    if (!err) {
        err = describe_layers(m, l, trainables + (available - count));
    }
    if (err) {
        return err;
    }
    if (config->selector == FL_SELECT_MASK) {
        fl_learner_prune(m, l);
        if (l->way[0].flags & FL_WAY_IDLE) {
            return FL_EINVAL;  // nothing would ever be trained
        }
    }
    find_rehearsal_set(m, l);
    for (uint32_t op = 0; op <= l->last_op; op++) {
        l->forward_macs += fl_model_op_macs(m, op);
    }
    l->y_max_count = l->layer_count + (l->layers[0].op == l->last_op ? 0u : 1u) + (config->selector == FL_SELECT_LOSS);
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
