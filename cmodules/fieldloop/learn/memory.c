// Where everything of a learner lies: the state in its own block, the scratch there or in the model's arena.
#include "fieldloop/fl_error.h"
#include "learner.h"

static const fl_plan_t *learning_plan(const fl_model_t *m) {
    uint32_t cursor = 0;
    uint32_t bytes;
    const void *data;
    while (fl_image_section(m->image, FL_SECTION_PLAN, &cursor, &data, &bytes) == FL_OK) {
        const fl_plan_t *plan = data;
        if (plan->kind == FL_PLAN_LEARN) {
            return plan;
        }
    }
    return NULL;
}

// A tensor that the walk back reads: it must have a place, and none in what is lent.
static int check_place(const fl_model_t *m, const uint32_t *offsets, uint32_t t, uint32_t from, uint32_t end, int *is_free) {
    if (m->tensors[t].kind == FL_CONSTANT) {
        return FL_OK;
    }
    if (offsets[t] == FL_NO_PLACE) {
        return FL_ENOTSUP;
    }
    *is_free &= offsets[t] >= end || offsets[t] + m->tensors[t].bytes <= from;
    return FL_OK;
}

// What the plan lends of the model's arena, in whole entries of the list: nothing if the walk back reads a byte of it.
static int find_loan(const fl_model_t *m, fl_learner_t *l) {
    const fl_plan_t *plan = learning_plan(m);
    if (!plan) {
        return FL_OK;  // fl_model_bind will say so
    }
    const uint32_t *offsets = (const uint32_t *)(const void *)(plan + 1);
    uint32_t from = plan->learner_scratch;
    uint32_t end = from + (plan->learner_scratch_bytes & ~1u);
    int is_free = 1;
    int err = FL_OK;
    for (uint32_t at = 0; !err && at < l->way_count; at++) {
        const fl_hop_t *step = &l->way[at];
        const fl_op_t *op = &m->ops[step->op];
        int is_max = op->opcode == FL_OP_MAX_POOL;
        // the logits, what is masked, and through which windows a delta is handed down; the inputs of trained layers
        if (at == 0 || fl_learner_masks(m, l, at) || (is_max && (step->flags & FL_WAY_FUSED))) {
            err = check_place(m, offsets, op->out[0], from, end, &is_free);
        }
        if (!err && (step->layer != FL_NONE || is_max)) {
            err = check_place(m, offsets, op->in[0], from, end, &is_free);
        }
    }
    if (!err && is_free && plan->learner_scratch_bytes > 0) {
        l->lent = from;
        l->lent_end = end;
    }
    return err;
}

// ---- the bytes of a layer in the state

static uint32_t weights_of(const fl_layer_t *layer) {
    return layer->rows * layer->row_bytes;
}

static uint32_t padded(uint32_t bytes) {
    return (bytes + 3u) & ~3u;
}

static int has_bias(const fl_model_t *m, const fl_layer_t *layer) {
    return m->ops[layer->op].in[2] != FL_NO_TENSOR;
}

static uint64_t weight_bytes(const fl_model_t *m, const fl_learner_config_t *c, const fl_layer_t *layer) {
    uint64_t bytes = padded(weights_of(layer)) + (has_bias(m, layer) ? 4ull * layer->rows : 0);
    if (c->weights == FL_WEIGHTS_INT16) {
        bytes += padded(weights_of(layer));
    } else if (c->weights == FL_WEIGHTS_F32) {
        bytes += 4ull * weights_of(layer);
    }
    return bytes;
}

static uint32_t moments_of(const fl_layer_t *layer) {
    return layer->optimizer == FL_OPTIMIZER_ADAM ? 2 : layer->optimizer == FL_OPTIMIZER_MOMENTUM ? 1 : 0;
}

static uint64_t moment_bytes(const fl_model_t *m, const fl_layer_t *layer) {
    return 4ull * moments_of(layer) * (weights_of(layer) + (has_bias(m, layer) ? layer->rows : 0));
}

static uint32_t own_scratch_from(uint32_t state_bytes) {
    return (state_bytes + 15u) & ~15u;
}

int fl_learner_measure(const fl_model_t *m, fl_learner_t *l) {
    int err = find_loan(m, l);
    if (err) {
        return err;
    }
    uint64_t weights = 0;
    uint64_t optimizer = 0;
    uint64_t batch = 0;
    for (uint32_t i = 0; i < l->layer_count; i++) {
        const fl_layer_t *layer = &l->layers[i];
        weights += weight_bytes(m, &l->config, layer);
        optimizer += moment_bytes(m, layer);
        if (fl_is_batched(l)) {
            batch += (uint64_t)layer->slot_count * (layer->row_bytes + 1) * sizeof(float) + 2ull * layer->rows;
        }
    }
    uint64_t memory = 0;
    if (l->config.memory) {
        memory = 4ull * l->classes + (uint64_t)l->config.memory * (sizeof(uint16_t) + l->sample_bytes);
    }
    uint64_t state = sizeof(fl_state_header_t) + 8ull * ((l->y_max_count + 1) / 2) +
                     (uint64_t)l->layer_count * sizeof(fl_layer_stats_t) + weights + optimizer + memory;
    uint64_t deltas = ((uint64_t)l->delta_words + l->row_words) * sizeof(fl_word_t);
    uint64_t list = (uint64_t)l->list_room * sizeof(uint16_t);
    if (state + 15 + deltas + list + 3 + batch > INT32_MAX) {
        return FL_EINVAL;
    }
    uint32_t room = l->lent_end - l->lent;
    l->lends_deltas = deltas <= room;
    room -= l->lends_deltas ? (uint32_t)deltas : 0;
    l->lends_list = list <= room;
    uint64_t lent = (l->lends_deltas ? deltas : 0) + (l->lends_list ? list : 0);
    uint32_t own = (uint32_t)(deltas + list - lent);
    l->batch_from = own ? own_scratch_from((uint32_t)state) + own : (uint32_t)state;
    l->sizes.total_bytes = batch ? padded(l->batch_from) + (uint32_t)batch : l->batch_from;
    l->sizes.state_bytes = (uint32_t)state;
    l->sizes.weight_bytes = (uint32_t)weights;
    l->sizes.optimizer_bytes = (uint32_t)optimizer;
    l->sizes.memory_bytes = (uint32_t)memory;
    l->sizes.scratch_bytes = (uint32_t)(deltas + list);
    l->sizes.lent_bytes = (uint32_t)lent;
    l->sizes.batch_bytes = (uint32_t)batch;
    return FL_OK;
}

// `count` floats at *at.
static float *take_floats(uint8_t **at, uint32_t count) {
    float *place = (float *)(void *)*at;
    *at += count * sizeof(float);
    return place;
}

static void place_moments(fl_layer_t *layer, uint8_t **at) {
    uint32_t n = weights_of(layer);
    uint32_t moments = moments_of(layer);
    layer->moment1 = moments > 0 ? take_floats(at, n) : NULL;
    layer->moment2 = moments > 1 ? take_floats(at, n) : NULL;
    layer->bias_moment1 = moments > 0 && layer->b ? take_floats(at, layer->rows) : NULL;
    layer->bias_moment2 = moments > 1 && layer->b ? take_floats(at, layer->rows) : NULL;
}

static void place_batch(fl_learner_t *l) {
    uint8_t *at = l->block + padded(l->batch_from);
    for (uint32_t i = 0; i < l->layer_count; i++) {
        l->layers[i].slots = take_floats(&at, l->layers[i].slot_count * (l->layers[i].row_bytes + 1));
    }
    for (uint32_t i = 0; i < l->layer_count; i++) {
        l->layers[i].slot_of = (uint16_t *)(void *)at;
        at += l->layers[i].rows * sizeof(uint16_t);
    }
}

void fl_learner_place(fl_learner_t *l, void *block) {
    uint8_t *at = block;
    l->block = at;
    at += sizeof(fl_state_header_t);
    l->y_max = (float *)(void *)at;
    at += (l->y_max_count + 1) / 2 * 8;
    l->layer_stats = (fl_layer_stats_t *)(void *)at;
    at += l->layer_count * sizeof(fl_layer_stats_t);
    for (uint32_t i = 0; i < l->layer_count; i++) {
        fl_layer_t *layer = &l->layers[i];
        if (has_bias(l->model, layer)) {
            layer->b = (int32_t *)(void *)at;
            at += layer->rows * sizeof(int32_t);
        }
        layer->w = (int8_t *)at;
        at += padded(weights_of(layer));
        if (l->config.weights == FL_WEIGHTS_INT16) {
            layer->low = (int8_t *)at;
            at += padded(weights_of(layer));
        } else if (l->config.weights == FL_WEIGHTS_F32) {
            layer->master = take_floats(&at, weights_of(layer));
        }
        place_moments(layer, &at);
        l->overrides[i] = (fl_override_t){layer->op, layer->w, layer->b};
    }
    if (l->config.memory) {
        l->memory_seen = (uint32_t *)(void *)at;
        at += l->classes * sizeof(uint32_t);
        l->memory_labels = (uint16_t *)(void *)at;
        at += l->config.memory * sizeof(uint16_t);
        l->memory_samples = (int8_t *)at;
    }
    if (fl_is_batched(l)) {
        place_batch(l);
    }
    fl_learner_place_scratch(l);
}

void fl_learner_place_scratch(fl_learner_t *l) {
    uint8_t *arena = l->model->arena;
    uint32_t list = l->lends_list ? l->list_room * (uint32_t)sizeof(uint16_t) : 0;
    uint8_t *list_end = l->lends_list ? arena + l->lent_end : l->block + l->batch_from;
    l->list_end = (uint16_t *)(void *)list_end;
    if (l->lends_deltas) {
        l->deltas = arena + ((l->lent_end - list) & ~3u) - (l->delta_words + l->row_words) * sizeof(fl_word_t);
    } else {
        l->deltas = l->block + own_scratch_from(l->sizes.state_bytes);
    }
}
