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

// What the plan lends of the model's arena, in whole entries of the list: nothing if the backward pass reads a byte of
// it. What that reads must all have a place.
static int find_loan(const fl_model_t *m, fl_learner_t *l) {
    const fl_plan_t *plan = learning_plan(m);
    if (!plan) {
        return FL_OK;  // fl_model_bind will say so
    }
    const uint32_t *offsets = (const uint32_t *)(const void *)(plan + 1);
    uint32_t lent_end = plan->learner_scratch + (plan->learner_scratch_bytes & ~1u);
    uint32_t lowest = l->layers[l->layer_count - 1].op;
    uint32_t t = m->ops[lowest].in[0];
    int is_free = 1;
    for (uint32_t op = lowest;; op++) {
        if (m->tensors[t].kind != FL_CONSTANT) {
            if (offsets[t] == FL_NO_PLACE) {
                return FL_ENOTSUP;
            }
            is_free &= offsets[t] >= lent_end || offsets[t] + m->tensors[t].bytes <= plan->learner_scratch;
        }
        if (op > l->last_op) {
            break;
        }
        t = m->ops[op].out[0];
    }
    if (is_free && plan->learner_scratch_bytes > 0) {
        l->lent = plan->learner_scratch;
        l->lent_end = lent_end;
    }
    return FL_OK;
}

static uint32_t padded_weights(const fl_layer_t *layer) {
    return (layer->rows * layer->row_bytes + 3u) & ~3u;
}

static int has_bias(const fl_model_t *m, const fl_layer_t *layer) {
    return m->ops[layer->op].in[2] != FL_NO_TENSOR;
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
    for (uint32_t i = 0; i < l->layer_count; i++) {
        const fl_layer_t *layer = &l->layers[i];
        weights += padded_weights(layer) + (has_bias(m, layer) ? 4u * layer->rows : 0u);
    }
    uint64_t memory = 0;
    if (l->config.memory) {
        memory = 4ull * l->classes + (uint64_t)l->config.memory * (sizeof(uint16_t) + l->sample_bytes);
    }
    uint64_t state = sizeof(fl_state_header_t) + 8ull * ((l->y_max_count + 1) / 2) +
                     (uint64_t)l->layer_count * sizeof(fl_layer_stats_t) + weights + memory;
    uint64_t deltas = (uint64_t)l->delta_bytes + l->row_bytes;
    uint64_t kept = (uint64_t)l->keep_max * sizeof(uint16_t);
    if (state + 15 + deltas + kept > INT32_MAX) {
        return FL_EINVAL;
    }
    uint32_t room = l->lent_end - l->lent;
    l->lends_deltas = deltas <= room;
    room -= l->lends_deltas ? (uint32_t)deltas : 0;
    l->lends_kept = kept <= room;
    uint64_t lent = (l->lends_deltas ? deltas : 0) + (l->lends_kept ? kept : 0);
    uint64_t own = deltas + kept - lent;
    l->sizes.total_bytes = (uint32_t)(own ? own_scratch_from((uint32_t)state) + own : state);
    l->sizes.state_bytes = (uint32_t)state;
    l->sizes.weight_bytes = (uint32_t)weights;
    l->sizes.memory_bytes = (uint32_t)memory;
    l->sizes.scratch_bytes = (uint32_t)(deltas + kept);
    l->sizes.lent_bytes = (uint32_t)lent;
    return FL_OK;
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
        at += padded_weights(layer);
        l->overrides[i] = (fl_override_t){layer->op, layer->w, layer->b};
    }
    if (l->config.memory) {
        l->memory_seen = (uint32_t *)(void *)at;
        at += l->classes * sizeof(uint32_t);
        l->memory_labels = (uint16_t *)(void *)at;
        at += l->config.memory * sizeof(uint16_t);
        l->memory_samples = (int8_t *)at;
    }
    fl_learner_place_scratch(l);
}

void fl_learner_place_scratch(fl_learner_t *l) {
    uint8_t *arena = l->model->arena;
    uint32_t kept = l->lends_kept ? l->keep_max * (uint32_t)sizeof(uint16_t) : 0;
    uint8_t *kept_end = l->lends_kept ? arena + l->lent_end : l->block + l->sizes.total_bytes;
    l->kept_end = (uint16_t *)(void *)kept_end;
    if (l->lends_deltas) {
        l->deltas = arena + ((l->lent_end - kept) & ~3u) - (l->delta_bytes + l->row_bytes);
    } else {
        l->deltas = l->block + own_scratch_from(l->sizes.state_bytes);
    }
}
