// What a sample changes in a layer: rows of weights with a spot, and biases; or, in a batch, what it adds to their gradients.
#include <string.h>

#include "fieldloop/fl_backward_q.h"
#include "spots.h"

void fl_learner_begin_update(fl_learner_t *l, const fl_layer_t *layer, uint64_t *clipped, fl_step_rule_t *rule) {
    const fl_learner_config_t *c = &l->config;
    const fl_state_header_t *state = fl_state(l);
    fl_layer_stats_t *stats = &l->layer_stats[layer->distance];
    if (layer->optimizer == FL_OPTIMIZER_ADAM) {
        stats->decay1 = stats->decay1 * c->beta1;
        stats->decay2 = stats->decay2 * c->beta2;
    }
    *clipped = 0;
    *rule = (fl_step_rule_t){
        .optimizer = layer->optimizer,
        .lr = layer->lr,
        .x_scale = layer->x_scale,
        .x_zero = layer->x_zero,
        .w_scale = {layer->w_scale, layer->w_scale_stride},
        .key = fl_random_key(state->seed, state->step, layer->op),
        .max_step = c->max_step,
        .beta1 = c->beta1,
        .beta2 = c->beta2,
        .decay1 = stats->decay1,
        .decay2 = stats->decay2,
        .clipped = clipped,
    };
}

void fl_learner_end_update(fl_learner_t *l, const fl_layer_t *layer, const fl_step_rule_t *rule) {
    fl_state(l)->stats.clipped += *rule->clipped;
    l->layer_stats[layer->distance].clipped += *rule->clipped;
}

fl_trained_t fl_learner_trained(const fl_learner_t *l, const fl_layer_t *layer) {
    int is_depthwise = l->model->ops[layer->op].opcode == FL_OP_DEPTHWISE_CONV2D;
    return (fl_trained_t){
        .w = layer->w,
        .low = layer->low,
        .master = layer->master,
        .moment1 = layer->moment1,
        .moment2 = layer->moment2,
        .row_stride = is_depthwise ? 1 : layer->row_bytes,
        .step = is_depthwise ? layer->rows : 1,
    };
}

void fl_learner_step_bias(const fl_step_rule_t *rule, const fl_layer_t *layer, uint32_t row, float sum) {
    if (layer->b) {
        fl_step_bias(rule, row, sum, layer->rows * layer->row_bytes + row, &layer->b[row],
                     layer->bias_moment1 ? &layer->bias_moment1[row] : NULL,
                     layer->bias_moment2 ? &layer->bias_moment2[row] : NULL);
    }
}

// One layer of one sample, while it is being updated.
typedef struct {
    fl_learner_t *l;
    fl_layer_t *layer;
    const fl_op_t *op;
    const int8_t *x;        // its saved input
    fl_step_rule_t rule;
    fl_trained_t trained;
    int gathers;            // into a batch
    int with_bias;          // of the rows with a spot; else all biases come afterwards
    int32_t exponent;       // of 16 bits: of the sums of a row
    uint32_t r;             // and the shift of what is summed
} fl_layer_update_t;

static void finish_row(const fl_layer_update_t *u, uint32_t row, const float *gradient, float bias) {
    if (u->gathers) {
        fl_batch_add(u->layer, row, gradient, u->with_bias ? bias : 0.0f);
        return;
    }
    fl_step_row(&u->rule, &u->trained, row, gradient, u->layer->row_bytes);
    if (u->with_bias) {
        fl_learner_step_bias(&u->rule, u->layer, row, bias);
    }
}

static void finish_q_bias(const fl_layer_update_t *u, uint32_t row, int32_t sum) {
    const fl_layer_t *layer = u->layer;
    fl_q_step_bias(&u->rule, row, sum, u->exponent, layer->rows * layer->row_bytes + row, &layer->b[row]);
}

// What a channel's spots add to its bias.
static fl_word_t add_spots(const fl_layer_update_t *u, fl_word_t sum, const fl_spot_t *spots, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        if (fl_is_q(u->l)) {
            sum.q += fl_q_scaled(spots[i].delta.q, 1 << 15, u->r);
        } else {
            sum.f = sum.f + spots[i].delta.f;
        }
    }
    return sum;
}

static void add_to_row(const fl_layer_update_t *u, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count, uint32_t c) {
    const fl_conv_params_t *p = &u->op->p.conv;
    int32_t x_zero = u->layer->x_zero;
    int is_depthwise = u->op->opcode == FL_OP_DEPTHWISE_CONV2D;
    if (fl_is_q(u->l) && is_depthwise) {
        fl_q_spots_depthwise_conv2d_row(p, d, spots, count, c, u->x, x_zero, u->r, fl_row(u->l));
    } else if (fl_is_q(u->l)) {
        fl_q_spots_conv2d_row(p, d, spots, count, u->x, x_zero, u->r, fl_row(u->l));
    } else if (is_depthwise) {
        fl_spots_depthwise_conv2d_row(p, d, spots, count, c, u->x, x_zero, fl_row(u->l));
    } else {
        fl_spots_conv2d_row(p, d, spots, count, u->x, x_zero, fl_row(u->l));
    }
}

// Out of line, as the biases' below: each has a chunk of spots on the stack.
static __attribute__((noinline)) void update_map(fl_layer_update_t *u, const fl_hop_t *step, const fl_kept_t *kept) {
    const fl_map_dims_t d = fl_learner_dims(u->l->model, u->op);
    fl_spot_t chunk[FL_SPOTS];
    fl_spots_t s;
    fl_spots_begin(u->l, step, &s);
    fl_spots_keep(&s, kept);
    while (fl_spots_channel(&s)) {
        uint32_t count = fl_spots_take(&s, chunk);
        if (count == 0) {
            continue;  // a row without a spot stays what it is
        }
        fl_word_t bias = {0};
        memset(fl_row(u->l), 0, u->layer->row_bytes * sizeof(fl_word_t));
        for (; count > 0; count = fl_spots_take(&s, chunk)) {
            add_to_row(u, &d, chunk, count, s.channel);
            bias = add_spots(u, bias, chunk, count);
        }
        if (!fl_is_q(u->l)) {
            finish_row(u, s.channel, fl_row(u->l), bias.f);
            continue;
        }
        fl_q_step_row(&u->rule, &u->trained, s.channel, fl_row(u->l), u->exponent, u->layer->row_bytes);
        if (u->with_bias) {
            finish_q_bias(u, s.channel, bias.q);
        }
    }
}

static void update_row(fl_layer_update_t *u, uint32_t row, fl_word_t delta) {
    const fl_layer_t *layer = u->layer;
    if (fl_is_q(u->l)) {
        fl_q_step_fully_connected_row(&u->rule, &u->trained, row, delta.q, u->exponent, u->x, layer->row_bytes);
        if (u->with_bias) {
            finish_q_bias(u, row, delta.q);
        }
        return;
    }
    if (!u->gathers && layer->optimizer == FL_OPTIMIZER_SGD) {
        fl_step_fully_connected_row(&u->rule, &u->trained, row, delta.f, u->x, layer->row_bytes);
        if (u->with_bias) {
            fl_learner_step_bias(&u->rule, layer, row, delta.f);
        }
        return;
    }
    float *gradient = fl_row(u->l);
    for (uint32_t j = 0; j < layer->row_bytes; j++) {
        gradient[j] = 0.0f + delta.f * (float)(u->x[j] - layer->x_zero);  // never -0, as a sum that begins at 0
    }
    finish_row(u, row, gradient, delta.f);
}

static void update_rows(fl_layer_update_t *u, const fl_hop_t *step, const fl_kept_t *kept) {
    const fl_word_t *delta = fl_words(u->l, step->delta);
    uint32_t count = kept->list ? kept->count : u->layer->rows;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = kept->list ? kept->list[i] : i;
        if ((delta[row].q & 0x7fffffff) != 0) {
            update_row(u, row, delta[row]);
        }
    }
}

// FL_BIAS_DENSE: every bias, by all of its channel's entries, whatever was kept of them.
static void finish_bias(const fl_layer_update_t *u, uint32_t row, fl_word_t sum) {
    if (fl_is_q(u->l)) {
        finish_q_bias(u, row, sum.q);
    } else if (u->gathers) {
        fl_batch_add(u->layer, row, NULL, sum.f);
    } else {
        fl_learner_step_bias(&u->rule, u->layer, row, sum.f);
    }
}

static __attribute__((noinline)) void update_biases(fl_layer_update_t *u, const fl_hop_t *step) {
    if (u->op->opcode == FL_OP_FULLY_CONNECTED) {
        const fl_word_t *delta = fl_words(u->l, step->delta);
        for (uint32_t row = 0; row < u->layer->rows; row++) {
            finish_bias(u, row, delta[row]);
        }
        return;
    }
    fl_spot_t chunk[FL_SPOTS];
    fl_spots_t s;
    fl_spots_begin(u->l, step, &s);
    while (fl_spots_channel(&s)) {
        fl_word_t sum = {0};
        uint32_t count;
        while ((count = fl_spots_take(&s, chunk)) > 0) {
            sum = add_spots(u, sum, chunk, count);
        }
        finish_bias(u, s.channel, sum);
    }
}

void fl_learner_update(fl_learner_t *l, const fl_hop_t *step, const fl_kept_t *kept, uint32_t l1) {
    const fl_model_t *m = l->model;
    fl_layer_t *layer = &l->layers[step->layer];
    const fl_op_t *op = &m->ops[step->op];
    uint64_t clipped = 0;
    if (fl_is_frozen(l, layer)) {
        return;
    }
    fl_layer_update_t u = {
        .l = l,
        .layer = layer,
        .op = op,
        .x = fl_model_tensor(m, op->in[0]),
        .trained = fl_learner_trained(l, layer),
        .gathers = fl_is_batched(l),
        .with_bias = layer->b && l->config.bias_mode == FL_BIAS_TOPK,
        .exponent = l->delta[step->delta].exponent,
    };
    if (!u.gathers) {
        fl_learner_begin_update(l, layer, &clipped, &u.rule);
    }
    if (op->opcode == FL_OP_FULLY_CONNECTED) {
        update_rows(&u, step, kept);
    } else {
        if (fl_is_q(l)) {
            u.r = fl_q_headroom(l1, m->tensors[op->out[0]].bytes, 255);
            u.exponent += (int32_t)u.r;
        }
        update_map(&u, step, kept);
    }
    if (layer->b && l->config.bias_mode == FL_BIAS_DENSE) {
        update_biases(&u, step);
    }
    if (!u.gathers) {
        fl_learner_end_update(l, layer, &u.rule);
    }
}
