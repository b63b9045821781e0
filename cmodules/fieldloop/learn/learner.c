// One sample at a time: forward, error, decision, backward; then the rehearsal.
#include <string.h>

#include "fieldloop/fl_error.h"
#include "learner.h"

int fl_learner_is_bound(const fl_model_t *m) {
    return m->plan && ((const fl_plan_t *)(const void *)m->plan - 1)->kind == FL_PLAN_LEARN;
}

int fl_learner_init(fl_learner_t *l, fl_model_t *m, const fl_learner_config_t *config, void *block, size_t block_bytes) {
    int err = fl_float_mode_check();
    if (err) {
        return err;
    }
    if (!fl_learner_is_bound(m)) {
        return FL_EINVAL;
    }
    // everything that can fail comes before the first change: `l` may be what `m` runs with now
    fl_learner_sizes_t sizes;
    err = fl_learner_sizes(m, config, &sizes);
    if (err) {
        return err;
    }
    if (((uintptr_t)block & 15u) != 0) {
        return FL_EALIGN;
    }
    if (!block || block_bytes < sizes.total_bytes) {
        return FL_ENOMEM;
    }
    err = fl_learner_layout(m, config, l);
    if (err) {
        return err;
    }
    l->model = m;
    fl_learner_place(l, block);
    fl_learner_reset(l);
    m->overrides = l->overrides;
    m->override_count = l->layer_count;
    return FL_OK;
}

static int decides_to_train(const fl_learner_t *l, float alpha) {
    const fl_learner_config_t *c = &l->config;
    return !fl_learner_skips(c) || fl_decision(alpha, c->d_min, c->d_max) > c->d_thr;
}

// Learns one sample from wherever it came; `step` receives what happened.
static int learn(fl_learner_t *l, const int8_t *x, uint32_t label, fl_step_t *step) {
    fl_model_t *m = l->model;
    fl_state_header_t *state = fl_state(l);
    const fl_tensor_t *logits = &m->tensors[m->ops[l->last_op].out[0]];
    if (!fl_learner_is_bound(m)) {
        return FL_EINVAL;
    }
    fl_learner_place_scratch(l);  // a bind since the last sample may have moved the arena
    memmove(fl_model_input(m, 0), x, l->sample_bytes);
    int err = fl_model_run_ops(m, 0, l->last_op + 1);
    if (err) {
        return err;
    }
    state->step++;
    state->stats.forward_macs += l->forward_macs;
    state->stats.dense_backward_macs += l->dense_macs;

    float *delta = (float *)(void *)l->deltas;
    *step = (fl_step_t){0};
    step->error = fl_output_error(fl_model_tensor(m, m->ops[l->last_op].out[0]), l->classes, logits->scale,
                                  logits->zero_point, label, delta, &step->predicted);
    if (!fl_is_finite(step->error)) {
        state->stats.refused++;
        return FL_OK;
    }
    float alpha = fl_propagation_rate(step->error, &l->y_max[0], l->config.rho);
    if (!decides_to_train(l, alpha)) {
        state->stats.skipped++;
        return FL_OK;
    }
    step->trained = 1;
    step->kept = fl_learner_backward(l, step->error);
    state->stats.trained++;
    if (!fl_is_batched(l)) {
        state->stats.updates++;
    } else if (++l->gathered == l->config.batch) {
        fl_learner_flush(l);
    }
    return FL_OK;
}

int fl_learner_train(fl_learner_t *l, const int8_t *x, uint32_t label, fl_step_t *step) {
    fl_step_t local;
    if (label >= l->classes) {
        return FL_EINVAL;
    }
    int err = learn(l, x, label, step ? step : &local);
    if (!err) {
        fl_state(l)->stats.samples++;
    }
    return err;
}

int fl_learner_step(fl_learner_t *l, const int8_t *x, uint32_t label, fl_step_t *step) {
    fl_learner_stats_t *stats = &fl_state(l)->stats;
    uint32_t refused = stats->refused;
    // the run overwrites the model's arena, and x is still wanted for the memory afterwards
    uintptr_t offset = (uintptr_t)x - (uintptr_t)l->model->arena;
    if (offset < l->model->arena_bytes) {
        return FL_EINVAL;
    }
    int err = fl_learner_train(l, x, label, step);
    if (err || stats->refused != refused) {
        return err;
    }
    fl_rehearsal_offer(l, x, label);
    for (uint32_t i = 0; i < l->config.replays; i++) {
        const int8_t *old;
        uint32_t old_label;
        fl_step_t ignored;
        if (!fl_rehearsal_draw(l, &old, &old_label)) {
            break;
        }
        err = learn(l, old, old_label, &ignored);
        if (err) {
            return err;
        }
        stats->replayed++;
    }
    return FL_OK;
}
