// Gradients of several samples: a row takes a slot when a sample touches it for the first time, and all rows that have one
// are stepped at once, by the average. A slot is the row's gradient and behind it its bias's.
#include <string.h>

#include "learn/rounding.h"
#include "learner.h"

// What a slot begins with: no gradient holds it, being a sum that begins at 0. A row that has its slot for its bias alone
// (FL_BIAS_DENSE) keeps it, and its weights stay, moments included.
#define NO_GRADIENT (-0.0f)

static float *slot_of(fl_layer_t *layer, uint32_t row) {
    uint32_t bytes = layer->row_bytes + 1;
    if (layer->slot_of[row] == FL_NO_SLOT) {
        layer->slot_of[row] = (uint16_t)layer->slots_taken++;
        float *slot = layer->slots + (size_t)layer->slot_of[row] * bytes;
        memset(slot, 0, bytes * sizeof(float));
        slot[0] = NO_GRADIENT;
    }
    return layer->slots + (size_t)layer->slot_of[row] * bytes;
}

void fl_batch_add(fl_layer_t *layer, uint32_t row, const float *gradient, float bias) {
    float *slot = slot_of(layer, row);
    for (uint32_t j = 0; gradient && j < layer->row_bytes; j++) {
        slot[j] = slot[j] + gradient[j];
    }
    slot[layer->row_bytes] = slot[layer->row_bytes] + bias;
}

void fl_batch_clear(fl_learner_t *l) {
    l->gathered = 0;
    for (uint32_t i = 0; fl_is_batched(l) && i < l->layer_count; i++) {
        fl_layer_t *layer = &l->layers[i];
        layer->slots_taken = 0;
        for (uint32_t row = 0; row < layer->rows; row++) {
            layer->slot_of[row] = FL_NO_SLOT;
        }
    }
}

static void step_layer(fl_learner_t *l, fl_layer_t *layer, float samples) {
    uint64_t clipped;
    fl_step_rule_t rule;
    fl_learner_begin_update(l, layer, &clipped, &rule);
    fl_trained_t trained = fl_learner_trained(l, layer);
    for (uint32_t row = 0; row < layer->rows; row++) {
        if (layer->slot_of[row] == FL_NO_SLOT) {
            continue;
        }
        float *slot = slot_of(layer, row);
        int has_gradient = fl_bits_of(slot[0]) != fl_bits_of(NO_GRADIENT);
        for (uint32_t j = 0; j <= layer->row_bytes; j++) {
            slot[j] = slot[j] / samples;
        }
        if (has_gradient) {
            fl_step_row(&rule, &trained, row, slot, layer->row_bytes);
        }
        fl_learner_step_bias(&rule, layer, row, slot[layer->row_bytes]);
    }
    fl_learner_end_update(l, layer, &rule);
}

void fl_learner_flush(fl_learner_t *l) {
    if (l->gathered == 0) {
        return;
    }
    for (uint32_t i = 0; i < l->layer_count; i++) {
        if (!fl_is_frozen(l, &l->layers[i])) {
            step_layer(l, &l->layers[i], (float)l->gathered);
        }
    }
    fl_state(l)->stats.updates++;
    fl_batch_clear(l);
}
