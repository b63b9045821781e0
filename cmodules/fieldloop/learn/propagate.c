// One operator down: from the delta of its output to that of its input, with the weights as the forward pass used them.
#include <string.h>

#include "core/image.h"
#include "fieldloop/fl_backward_q.h"
#include "spots.h"

// What a channel's spots are multiplied with.
typedef struct {
    fl_row_scales_t scales;
    int32_t exponent;  // of 16 bits: of the scales
    uint32_t r;        // and the shift that keeps sums in range
} fl_factors_t;

static float scale_of(const fl_factors_t *f, uint32_t c) {
    return f->scales.scale[c * f->scales.stride];
}

static void convolution(const fl_learner_t *l, const fl_hop_t *step, const fl_kept_t *kept, const fl_factors_t *f,
                        fl_word_t *to) {
    const fl_model_t *m = l->model;
    const fl_op_t *op = &m->ops[step->op];
    const fl_conv_params_t *p = &op->p.conv;
    const int8_t *w = fl_model_weights(m, step->op);
    uint32_t row_bytes = fl_row_bytes(m, op);
    fl_map_dims_t d = fl_learner_dims(m, op);
    int is_depthwise = op->opcode == FL_OP_DEPTHWISE_CONV2D;
    fl_spot_t chunk[FL_SPOTS];
    fl_spots_t s;
    fl_spots_begin(l, step, &s);
    fl_spots_keep(&s, kept);
    while (fl_spots_channel(&s)) {
        uint32_t c = s.channel;
        int32_t mantissa = fl_is_q(l) ? fl_q_mantissa(scale_of(f, c), f->exponent) : 0;
        uint32_t count;
        while ((count = fl_spots_take(&s, chunk)) > 0) {
            if (fl_is_q(l) && is_depthwise) {
                fl_q_spots_depthwise_conv2d_input(p, &d, chunk, count, c, w, mantissa, f->r, &to->q);
            } else if (fl_is_q(l)) {
                fl_q_spots_conv2d_input(p, &d, chunk, count, w + (size_t)c * row_bytes, mantissa, f->r, &to->q);
            } else if (is_depthwise) {
                fl_spots_depthwise_conv2d_input(p, &d, chunk, count, c, w, scale_of(f, c), &to->f);
            } else {
                fl_spots_conv2d_input(p, &d, chunk, count, w + (size_t)c * row_bytes, scale_of(f, c), &to->f);
            }
        }
    }
}

static void fully_connected(const fl_learner_t *l, const fl_hop_t *step, const fl_kept_t *kept, const fl_factors_t *f,
                            fl_word_t *to) {
    const fl_model_t *m = l->model;
    const int8_t *w = fl_model_weights(m, step->op);
    uint32_t cols = fl_row_bytes(m, &m->ops[step->op]);
    const fl_word_t *delta = fl_words(l, step->delta);
    uint32_t count = kept->list ? kept->count : l->delta[step->delta].words;
    if (fl_is_q(l)) {
        fl_q_rows_fully_connected_input(&delta->q, kept->list, count, w, &f->scales, f->exponent, f->r, cols, &to->q);
    } else {
        fl_rows_fully_connected_input(&delta->f, kept->list, count, w, &f->scales, cols, &to->f);
    }
}

// A pool that is not fused: each spot is added where it falls.
static void pool(const fl_learner_t *l, const fl_hop_t *step, fl_word_t *to) {
    fl_spot_t chunk[FL_SPOTS];
    fl_spots_t s;
    fl_spots_begin(l, step, &s);
    while (fl_spots_channel(&s)) {
        uint32_t count;
        while ((count = fl_spots_take(&s, chunk)) > 0) {
            for (uint32_t i = 0; i < count; i++) {
                fl_word_t *at = to + (chunk[i].y * (uint32_t)s.map.in_w + chunk[i].x) * s.channels + s.channel;
                if (fl_is_q(l)) {
                    at->q += chunk[i].delta.q;
                } else {
                    at->f = at->f + chunk[i].delta.f;
                }
            }
        }
    }
}

static void one_operator(fl_learner_t *l, const fl_hop_t *step, const fl_kept_t *kept, uint32_t l1) {
    const fl_model_t *m = l->model;
    const fl_op_t *op = &m->ops[step->op];
    // of 16 bits, what is added to a delta that is there gets an exponent of its own first
    int is_apart = (step->flags & FL_WAY_ADDS) && fl_is_q(l);
    fl_delta_t *into = &l->delta[is_apart ? step->to[1] : step->to[0]];
    fl_word_t *to = fl_words(l, is_apart ? step->to[1] : step->to[0]);
    if (is_apart || !(step->flags & FL_WAY_ADDS)) {
        memset(to, 0, into->words * sizeof *to);
    }
    int32_t exponent = l->delta[step->delta].exponent;
    if (fl_has_weights(op)) {
        fl_factors_t f = {.scales = fl_weight_scales(m, op)};
        if (fl_is_q(l)) {
            f.exponent = fl_q_scale_exponent(&f.scales, fl_output_channels(m, op));
            f.r = fl_q_headroom(l1, fl_elements(&m->tensors[op->out[0]]), 128);
            exponent += f.exponent + 15 + (int32_t)f.r;
        }
        if (op->opcode == FL_OP_FULLY_CONNECTED) {
            fully_connected(l, step, kept, &f, to);
        } else {
            convolution(l, step, kept, &f, to);
        }
    } else {
        pool(l, step, to);
    }
    if (fl_is_q(l)) {
        into->exponent = exponent + (int32_t)fl_q_normalise(&to->q, into->words);
        if (is_apart) {
            fl_delta_t *there = &l->delta[step->to[0]];
            fl_q_add(&fl_words(l, step->to[0])->q, &there->exponent, &to->q, into->exponent, into->words);
        }
    }
}

// An addition or a reshape: the delta goes on as it is, is added to the one that is there, or copied.
static void hand_on(fl_learner_t *l, const fl_hop_t *step, uint32_t place) {
    if (step->to[place] == FL_NONE || step->to[place] == step->delta) {
        return;
    }
    const fl_delta_t *from = &l->delta[step->delta];
    fl_delta_t *into = &l->delta[step->to[place]];
    const fl_word_t *delta = fl_words(l, step->delta);
    fl_word_t *to = fl_words(l, step->to[place]);
    if (!(step->flags & FL_WAY_ADDS << place)) {
        memcpy(to, delta, into->words * sizeof *to);
        into->exponent = from->exponent;
    } else if (fl_is_q(l)) {
        fl_q_add(&to->q, &into->exponent, &delta->q, from->exponent, into->words);
    } else {
        for (uint32_t i = 0; i < into->words; i++) {
            to[i].f = to[i].f + delta[i].f;
        }
    }
}

void fl_learner_propagate(fl_learner_t *l, const fl_hop_t *step, const fl_kept_t *kept, uint32_t l1) {
    const fl_op_t *op = &l->model->ops[step->op];
    if (op->opcode == FL_OP_ADD || op->opcode == FL_OP_RESHAPE) {
        hand_on(l, step, 0);
        hand_on(l, step, 1);
    } else {
        one_operator(l, step, kept, l1);
    }
}
