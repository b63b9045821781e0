// The walk back: from the delta of the logits through every operator on the way to the lowest trained layer. Each layer
// chooses what it keeps, hands its delta down with the old weights, and only then moves its weights. Shapes, ranges and
// places were proven beforehand (layout.c, way.c): nothing here can fail.
#include "fieldloop/fl_backward_q.h"
#include "fieldloop/fl_select.h"
#include "learner.h"

// The clamp folded into the operator that made the output.
static void mask(const fl_learner_t *l, uint32_t at) {
    const fl_model_t *m = l->model;
    const fl_hop_t *step = &l->way[at];
    const fl_op_t *op = &m->ops[step->op];
    uint32_t out = op->out[0];
    if (!fl_learner_masks(m, l, at)) {
        return;
    }
    if (step->pool != FL_NONE) {
        // the delta lies at the pool's outputs: a maximum is one of the convolution's outputs; the inputs of an average are
        // looked at one by one (spots.c)
        const fl_op_t *pool = &m->ops[l->way[step->pool].op];
        if (pool->opcode != FL_OP_MAX_POOL) {
            return;
        }
        out = pool->out[0];
    }
    fl_backward_activation(fl_model_tensor(m, out), l->delta[step->delta].words, op->act_min, op->act_max,
                           &fl_words(l, step->delta)->f);
}

// FL_SELECT_LOSS: one rate for all layers, from the sample's loss.
static float loss_rate(const fl_learner_t *l, float error) {
    if (l->config.selector != FL_SELECT_LOSS) {
        return 0.0f;
    }
    return fl_propagation_rate(fl_loss(error / 2.0f), &l->y_max[l->y_max_count - 1], l->config.rho);
}

uint32_t fl_learner_backward(fl_learner_t *l, float error) {
    static const fl_kept_t everything = {NULL, 0, 0};
    fl_learner_stats_t *stats = &fl_state(l)->stats;
    float rate = loss_rate(l, error);
    uint32_t kept_of_all = 0;
    fl_learner_grant(l, error);
    if (fl_is_q(l)) {
        fl_q_from_f32(fl_words(l, 0), l->classes);
        l->delta[0].exponent = -15;
    }
    for (uint32_t at = 0; at < l->way_count; at++) {
        const fl_hop_t *step = &l->way[at];
        uint32_t all = l->delta[step->delta].words;
        if (step->layer != FL_NONE) {
            l->layer_stats[step->layer].entries += all;
        }
        if (step->flags & FL_WAY_IDLE) {
            continue;
        }
        mask(l, at);
        if (step->flags & FL_WAY_FUSED) {
            continue;
        }
        const fl_op_t *op = &l->model->ops[step->op];
        uint32_t l1 = fl_is_q(l) && fl_has_weights(op) ? fl_q_l1(&fl_words(l, step->delta)->q, all) : 0;
        uint32_t updates = 0;
        fl_kept_t kept = everything;
        if (step->layer != FL_NONE) {
            kept = fl_learner_choose(l, step, error, rate, l1, &updates);
            kept_of_all += updates;
            l->layer_stats[step->layer].kept += updates;
        }
        // a mask restricts what is updated, not what is handed down
        int propagates_all = step->layer == FL_NONE || l->config.selector == FL_SELECT_MASK;
        if (fl_has_weights(op)) {
            uint32_t propagates = step->to[0] == FL_NONE ? 0 : propagates_all ? all : updates;
            stats->backward_macs += ((uint64_t)updates + propagates) * fl_learner_entry_macs(l->model, l, step);
        }
        if (step->to[0] != FL_NONE) {
            fl_learner_propagate(l, step, propagates_all ? &everything : &kept, l1);
        }
        if (step->layer != FL_NONE) {
            fl_learner_update(l, step, &kept, l1);
        }
    }
    return kept_of_all;
}
