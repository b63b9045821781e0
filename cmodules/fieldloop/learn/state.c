// The learned state: made from the image, taken over from bytes, handed out as bytes.
#include <float.h>
#include <string.h>

#include "fieldloop/fl_error.h"
#include "learner.h"

static const uint8_t *image_uid(const fl_learner_t *l) {
    return ((const fl_image_header_t *)(const void *)l->model->image)->uid;
}

void fl_learner_reset(fl_learner_t *l) {
    const fl_model_t *m = l->model;
    memset(l->block, 0, l->sizes.state_bytes);  // the state is the same bytes whatever the block held
    fl_state_header_t *state = fl_state(l);
    state->magic = FL_STATE_MAGIC;
    state->version = FL_STATE_VERSION;
    state->layer_count = (uint16_t)l->layer_count;
    state->state_bytes = l->sizes.state_bytes;
    state->memory = l->config.memory;
    memcpy(state->uid, image_uid(l), sizeof state->uid);
    state->sample_bytes = l->sample_bytes;
    state->y_max_count = l->y_max_count;
    state->seed = l->config.seed;
    state->weights = (uint8_t)l->config.weights;
    state->optimizer = (uint8_t)l->config.optimizer;
    for (uint32_t i = 0; i < l->layer_count; i++) {
        l->layer_stats[i].decay1 = 1.0f;
        l->layer_stats[i].decay2 = 1.0f;
        const fl_layer_t *layer = &l->layers[i];
        const fl_op_t *op = &m->ops[layer->op];
        memcpy(layer->w, fl_model_tensor(m, op->in[1]), (size_t)layer->rows * layer->row_bytes);
        if (layer->b) {
            memcpy(layer->b, fl_model_tensor(m, op->in[2]), layer->rows * sizeof(int32_t));
        }
        for (uint32_t j = 0; layer->master && j < layer->rows * layer->row_bytes; j++) {
            layer->master[j] = (float)layer->w[j];
        }
    }
    fl_batch_clear(l);
}

const void *fl_learner_state(const fl_learner_t *l) {
    return l->block;
}

const fl_learner_stats_t *fl_learner_stats(const fl_learner_t *l) {
    return &fl_state(l)->stats;
}

const fl_layer_stats_t *fl_learner_layer_stats(const fl_learner_t *l, uint32_t i) {
    return &l->layer_stats[i];
}

uint32_t fl_learner_saturated(const fl_learner_t *l, uint32_t i) {
    const fl_layer_t *layer = &l->layers[i];
    uint32_t count = 0;
    for (uint32_t j = 0; j < layer->rows * layer->row_bytes; j++) {
        count += layer->w[j] >= 127 || layer->w[j] <= -127;
    }
    return count;
}

// ---- taking over: `from` may lie anywhere and hold anything; read by memcpy, trusted in nothing

// The largest moment that training leads to (layout.c bounds the gradients), and what keeps all that follows from it finite.
#define LARGEST_MOMENTUM 2e37f
#define LARGEST_FIRST 1e16f
#define LARGEST_SECOND 1e31f

// `count` floats of the state that lie at `place` in the block: all within low..high, so that none is a NaN.
static int are_within(const fl_learner_t *l, const uint8_t *from, const float *place, uint32_t count, float low, float high) {
    if (!place) {
        return 1;  // the configuration has none
    }
    from += (const uint8_t *)place - l->block;
    for (uint32_t i = 0; i < count; i++) {
        float v;
        memcpy(&v, from + (size_t)i * sizeof v, sizeof v);
        if (!(v >= low && v <= high)) {
            return 0;
        }
    }
    return 1;
}

static int has_sound_floats(const fl_learner_t *l, const uint8_t *from, uint32_t i) {
    const fl_layer_t *layer = &l->layers[i];
    uint32_t n = layer->rows * layer->row_bytes;
    float first = layer->optimizer == FL_OPTIMIZER_ADAM ? LARGEST_FIRST : LARGEST_MOMENTUM;
    return are_within(l, from, &l->layer_stats[i].decay1, 2, 0.0f, 1.0f) &&
           are_within(l, from, layer->master, n, -128.0f, 127.0f) &&
           are_within(l, from, layer->moment1, n, -first, first) &&
           are_within(l, from, layer->moment2, n, 0.0f, LARGEST_SECOND) &&
           are_within(l, from, layer->bias_moment1, layer->rows, -first, first) &&
           are_within(l, from, layer->bias_moment2, layer->rows, 0.0f, LARGEST_SECOND);
}

_Static_assert(FL_LEARNER_HEAD == sizeof(fl_state_header_t), "the head is what the state begins with");

int fl_learner_fits(const fl_learner_t *l, const void *head, size_t bytes) {
    fl_state_header_t h;
    memcpy(&h, head, sizeof h);
    if (h.magic != FL_STATE_MAGIC || h.state_bytes != bytes) {
        return FL_EBADMSG;
    }
    if (h.version != FL_STATE_VERSION) {
        return FL_ENOTSUP;
    }
    if (memcmp(h.uid, image_uid(l), sizeof h.uid) != 0 || h.layer_count != l->layer_count ||
        h.memory != l->config.memory || h.weights != l->config.weights || h.optimizer != l->config.optimizer ||
        bytes != l->sizes.state_bytes) {
        return FL_EINVAL;
    }
    if (h.sample_bytes != l->sample_bytes || h.stats.remembered > h.memory) {
        return FL_EBADMSG;
    }
    return h.y_max_count == l->y_max_count ? FL_OK : FL_EINVAL;  // of another selector
}

int fl_learner_load(fl_learner_t *l, const void *state, size_t bytes) {
    const uint8_t *from = state;
    if (bytes < FL_LEARNER_HEAD) {
        return FL_EBADMSG;
    }
    int err = fl_learner_fits(l, from, bytes);
    if (err) {
        return err;
    }
    fl_state_header_t h;
    memcpy(&h, from, sizeof h);
    int sound = are_within(l, from, l->y_max, l->y_max_count, 0.0f, FLT_MAX);
    for (uint32_t i = 0; sound && i < l->layer_count; i++) {
        sound = has_sound_floats(l, from, i);
    }
    for (uint32_t i = 0; sound && i < h.stats.remembered; i++) {
        uint16_t label;
        memcpy(&label, from + ((const uint8_t *)&l->memory_labels[i] - l->block), sizeof label);
        sound = label < l->classes;
    }
    if (!sound) {
        return FL_EBADMSG;
    }
    memmove(l->block, from, bytes);
    fl_batch_clear(l);
    return FL_OK;
}
