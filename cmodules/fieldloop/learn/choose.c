// Which entries of a trained layer's delta take part: how many, by the selector, and which.
#include "fieldloop/fl_backward_q.h"
#include "fieldloop/fl_select.h"
#include "learner.h"

#define STREAM_RANDOM 0x72616e64u  // apart from the rounding streams, which are operator indices

static uint32_t lesser(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static uint32_t greater(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

static int is_tinyprop(const fl_learner_config_t *c) {
    return c->selector == FL_SELECT_TINYPROP || c->selector == FL_SELECT_TINYPROPV2;
}

// At the output a few deltas alone do harm: the label's is always among them, what balances it is not, and all logits drift to
// the end of their range. So all of them are kept where that is cheap. The papers' own rule keeps what it says, and the static
// ratios two, because one does not learn there.
static uint32_t least_of(const fl_learner_config_t *c, uint32_t distance, uint32_t n) {
    uint32_t least = c->floor;
    if (distance == 0) {
        least = greater(least, c->k_rule == FL_K_INTEGER ? FL_LEAST_AT_OUTPUT : is_tinyprop(c) ? 1 : 2);
    }
    return lesser(least, n);
}

// Of n, where the layer's rate is alpha. TinyProp damps the ratio with the distance, the others do not.
static uint32_t how_many(const fl_learner_config_t *c, uint32_t distance, float alpha, uint32_t n) {
    fl_ratio_t ratio = {c->s_min, c->s_max, c->zeta, c->k_rule};
    if (!is_tinyprop(c)) {
        ratio.zeta = 1.0f;
    }
    if (c->selector == FL_SELECT_TOPK || c->selector == FL_SELECT_RANDOM) {
        ratio.s_min = c->s_max;
        alpha = 1.0f;
    }
    return greater(fl_keep_count(&ratio, alpha, distance, n), least_of(c, distance, n));
}

static uint32_t masked_channels(const fl_learner_config_t *c, const fl_layer_t *layer) {
    uint32_t share = c->mask[layer->distance];
    uint32_t channels = (uint32_t)(((uint64_t)layer->rows * share + 127) / 255);
    return share && channels == 0 ? 1 : channels;
}

uint32_t fl_learner_keep_max(const fl_learner_config_t *c, const fl_layer_t *layer, uint32_t n) {
    switch (c->selector) {
    case FL_SELECT_DENSE:
    case FL_SELECT_BUDGET:
        return n;
    case FL_SELECT_MASK:
        return masked_channels(c, layer);
    default:
        return how_many(c, layer->distance, 1.0f, n);
    }
}

uint32_t fl_learner_keep_least(const fl_learner_config_t *c, const fl_layer_t *layer, uint32_t n) {
    int is_static = c->selector == FL_SELECT_DENSE || c->selector == FL_SELECT_TOPK || c->selector == FL_SELECT_RANDOM;
    return is_static ? fl_learner_keep_max(c, layer, n) : least_of(c, layer->distance, n);
}

static uint32_t units_of(const fl_learner_config_t *c, const fl_layer_t *layer) {
    return c->unit == FL_UNIT_CHANNEL ? layer->rows : layer->outputs;
}

static float output_rate(const fl_learner_t *l, float error) {
    return l->y_max[0] > 0.0f ? error / l->y_max[0] : 0.0f;  // the decision has raised the maximum already
}

void fl_learner_grant(fl_learner_t *l, float error) {
    const fl_learner_config_t *c = &l->config;
    uint64_t cost[FL_MAX_TRAINABLE];
    uint32_t n[FL_MAX_TRAINABLE];
    uint32_t granted[FL_MAX_TRAINABLE];
    if (c->selector != FL_SELECT_BUDGET) {
        return;
    }
    for (uint32_t i = 0; i < l->layer_count; i++) {
        const fl_layer_t *layer = &l->layers[i];
        cost[i] = layer->outputs * layer->entry_macs * (1 + layer->propagates);
        n[i] = units_of(c, layer);
    }
    fl_allot(cost, n, l->layer_count, c->s_min, c->s_max, output_rate(l, error), granted);
    for (uint32_t i = 0; i < l->layer_count; i++) {
        l->layers[i].granted = greater(granted[i], least_of(c, i, n[i]));
    }
}

// TinyProp's rate of a layer: of its own error to the largest so far.
static float layer_rate(fl_learner_t *l, const fl_hop_t *step, float error, uint32_t l1) {
    const fl_layer_t *layer = &l->layers[step->layer];
    if (layer->op == l->last_op) {
        return output_rate(l, error);
    }
    const fl_delta_t *delta = &l->delta[step->delta];
    float y = fl_is_q(l) ? fl_q_real(l1, delta->exponent) : fl_l1_norm(&fl_words(l, step->delta)->f, delta->words);
    uint32_t slot = step->layer + (l->layers[0].op == l->last_op ? 0u : 1u);
    return fl_propagation_rate(y, &l->y_max[slot], l->config.rho);
}

// The k channels that `kind` of keys puts first, ascending.
static fl_kept_t list_channels(const fl_learner_t *l, const fl_layer_t *layer, uint32_t kind, uint32_t seed, uint32_t k) {
    fl_ranking_t ranking = {fl_row(l), layer->rows, kind, seed};
    uint16_t *list = l->list_end - k;
    if (k > 0) {
        fl_cut_t cut = fl_select_cut(&ranking, k, l->config.search, list);
        fl_list_kept(&ranking, &cut, 1, layer->rows, list);
    }
    return (fl_kept_t){list, k, 1};
}

// A function of the image alone, worked out anew for each sample: cheaper than to keep it, beside the update of these channels.
static fl_kept_t masked(const fl_learner_t *l, const fl_layer_t *layer, uint32_t *entries) {
    const fl_model_t *m = l->model;
    const fl_op_t *op = &m->ops[layer->op];
    uint32_t k = layer->keep_max;
    *entries = k * (layer->outputs / layer->rows);
    if (k == layer->rows) {
        return (fl_kept_t){NULL, 0, 0};
    }
    int is_depthwise = op->opcode == FL_OP_DEPTHWISE_CONV2D;
    if (k > 0) {
        fl_channel_weights(fl_model_tensor(m, op->in[1]), is_depthwise ? 1 : layer->row_bytes, is_depthwise ? layer->rows : 1,
                           layer->row_bytes, layer->rows, fl_row(l));
    }
    return list_channels(l, layer, FL_KEYS_U32, 0, k);
}

static fl_kept_t best_channels(const fl_learner_t *l, const fl_hop_t *step, uint32_t kind, uint32_t seed, uint32_t k) {
    const fl_model_t *m = l->model;
    const fl_layer_t *layer = &l->layers[step->layer];
    if (kind == FL_KEYS_RANDOM) {
        return list_channels(l, layer, kind, seed, k);
    }
    if (l->config.rank == FL_RANK_ACTIVATION) {
        const fl_tensor_t *out = &m->tensors[m->ops[step->op].out[0]];
        fl_channel_activations(fl_model_tensor(m, m->ops[step->op].out[0]), out->zero_point, out->bytes / layer->rows,
                               layer->rows, fl_row(l));
    } else {
        fl_channel_errors((const uint32_t *)(const void *)fl_words(l, step->delta), l->config.deltas,
                          layer->outputs / layer->rows, layer->rows, fl_row(l));
    }
    return list_channels(l, layer, FL_KEYS_U32, 0, k);
}

// Lists what is kept where there is room for it; else drops the rest from the delta, which nobody else reads any more.
static fl_kept_t best_entries(const fl_learner_t *l, const fl_hop_t *step, uint32_t kind, uint32_t seed, uint32_t k) {
    const fl_layer_t *layer = &l->layers[step->layer];
    uint32_t *words = (uint32_t *)(void *)fl_words(l, step->delta);
    fl_ranking_t ranking = {words, layer->outputs, kind, seed};
    uint16_t *list = k <= l->list_room ? l->list_end - k : NULL;
    fl_cut_t cut = fl_select_cut(&ranking, k, l->config.search, list);
    if (!list) {
        fl_drop_others(&ranking, &cut, words);
        return (fl_kept_t){NULL, 0, 0};
    }
    fl_list_kept(&ranking, &cut, layer->outputs / layer->rows, layer->rows, list);
    return (fl_kept_t){list, k, 0};
}

fl_kept_t fl_learner_choose(fl_learner_t *l, const fl_hop_t *step, float error, float rate, uint32_t l1,
                            uint32_t *entries) {
    const fl_learner_config_t *c = &l->config;
    const fl_layer_t *layer = &l->layers[step->layer];
    const fl_state_header_t *state = fl_state(l);
    uint32_t n = units_of(c, layer);
    uint32_t k = n;
    switch (c->selector) {
    case FL_SELECT_DENSE:
        break;
    case FL_SELECT_MASK:
        return masked(l, layer, entries);
    case FL_SELECT_BUDGET:
        k = layer->granted;
        break;
    case FL_SELECT_TINYPROP:
    case FL_SELECT_TINYPROPV2:
        rate = layer_rate(l, step, error, l1);
        k = how_many(c, layer->distance, rate, n);
        break;
    default:
        k = how_many(c, layer->distance, rate, n);
        break;
    }
    *entries = c->unit == FL_UNIT_CHANNEL ? k * (layer->outputs / layer->rows) : k;
    if (k == n) {
        return (fl_kept_t){NULL, 0, 0};
    }
    uint32_t seed = fl_random_key(state->seed, state->step, STREAM_RANDOM ^ layer->op);
    uint32_t kind = c->selector == FL_SELECT_RANDOM ? FL_KEYS_RANDOM : fl_is_q(l) ? FL_KEYS_INT16 : FL_KEYS_F32;
    return c->unit == FL_UNIT_CHANNEL ? best_channels(l, step, kind, seed, k) : best_entries(l, step, kind, seed, k);
}
