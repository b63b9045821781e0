// A learner's settings: the defaults, and what is wrong with those that somebody asked for.
#include "learner.h"

static int in_unit_range(float v) {  // false for NaN
    return v >= 0.0f && v <= 1.0f;
}

void fl_learner_defaults(fl_learner_config_t *config) {
    *config = (fl_learner_config_t){
        .selector = FL_SELECT_TINYPROPV2,
        .floor = 1,
        .batch = 1,
        .max_step = 32,
        .s_min = 0.1f,
        .s_max = 0.9f,
        .zeta = 0.5f,
        .d_min = 0.0f,
        .d_max = 1.0f,
        .d_thr = 0.05f,
        .rho = 1.0f,
        .lr = 1.0f,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .replays = 4,
    };
}

int fl_learner_skips(const fl_learner_config_t *c) {
    if (c->skip == FL_SKIP_AUTO) {
        return c->selector == FL_SELECT_TINYPROPV2 || c->selector == FL_SELECT_BUDGET;
    }
    return c->skip == FL_SKIP_ON;
}

static const char *choices(const fl_learner_config_t *c) {
    if (c->selector > FL_SELECT_BUDGET) {
        return "selector: unknown";
    }
    if (c->skip > FL_SKIP_OFF) {
        return "skip: unknown";
    }
    if (c->unit > FL_UNIT_CHANNEL) {
        return "unit: unknown";
    }
    if (c->rank > FL_RANK_ACTIVATION) {
        return "rank: unknown";
    }
    if (c->search > FL_SEARCH_THRESHOLD) {
        return "search: unknown";
    }
    if (c->bias_mode > FL_BIAS_DENSE) {
        return "bias_mode: unknown";
    }
    if (c->k_rule > FL_K_TRUNC_F32) {
        return "k_rule: unknown";
    }
    if (c->deltas > FL_DELTAS_INT16) {
        return "deltas: unknown";
    }
    if (c->weights > FL_WEIGHTS_F32) {
        return "weights: unknown";
    }
    if (c->optimizer > FL_OPTIMIZER_ADAM) {
        return "optimizer: unknown";
    }
    return NULL;
}

static const char *ranges(const fl_learner_config_t *c) {
    if (c->layers > FL_MAX_TRAINABLE) {
        return "layers: more than a learner can train";
    }
    if (c->floor < 1 || c->floor > 65535) {
        return "floor: expected 1 to 65535";
    }
    if (c->batch < 1 || c->batch > FL_MAX_BATCH) {
        return "batch: expected 1 to 256";
    }
    if (c->max_step < 1 || c->max_step > 254) {
        return "max_step: expected 1 to 254";
    }
    if (!in_unit_range(c->s_min) || !in_unit_range(c->s_max)) {
        return "s_min, s_max: expected 0 to 1";
    }
    if (!in_unit_range(c->zeta)) {
        return "zeta: expected 0 to 1";
    }
    if (!fl_is_finite(c->d_min) || !fl_is_finite(c->d_max) || !fl_is_finite(c->d_thr)) {
        return "d_min, d_max, d_thr: expected finite numbers";
    }
    if (!(c->rho > 0.0f && c->rho <= 1.0f)) {
        return "rho: expected above 0 and at most 1";
    }
    if (!(c->lr > 0.0f) || !fl_is_finite(c->lr)) {
        return "lr: expected above 0";
    }
    if (!(c->beta1 >= 0.0f && c->beta1 < 1.0f) || !(c->beta2 >= 0.0f && c->beta2 < 1.0f)) {
        return "beta1, beta2: expected 0 or more and below 1";
    }
    if (c->replays > FL_MAX_REPLAYS) {
        return "replays: expected at most 256";
    }
    if (c->memory > FL_MAX_MEMORY) {
        return "memory: expected at most 65535 samples";
    }
    if (c->holdout == 1) {
        return "holdout: 1 leaves nothing to rehearse; expected 0, or 2 or more";
    }
    return NULL;
}

// Settings that are each in range, but together never train, never skip, or ask for what is not there.
static const char *combinations(const fl_learner_config_t *c) {
    if (c->s_min > c->s_max) {
        return "s_min: above s_max";
    }
    if (c->d_min > c->d_max) {
        return "d_min: above d_max";
    }
    if (fl_learner_skips(c) && c->d_max <= c->d_thr) {
        return "d_thr: not below d_max, nothing would ever be trained";
    }
    if (fl_learner_skips(c) && c->d_min > c->d_thr) {
        return "d_thr: below d_min, nothing would ever be skipped; use skip=off";
    }
    if (c->skip == FL_SKIP_OFF && c->selector == FL_SELECT_TINYPROPV2) {
        return "skip: tinypropv2 without it is tinyprop; use that";
    }
    if (c->rank == FL_RANK_ACTIVATION && c->unit != FL_UNIT_CHANNEL) {
        return "rank: activation ranks channels; use unit=channel";
    }
    if (c->deltas == FL_DELTAS_INT16 &&
        (c->optimizer != FL_OPTIMIZER_SGD || c->batch != 1 || c->weights == FL_WEIGHTS_F32)) {
        return "deltas: int16 goes with SGD, batch 1 and weights of int8 or int16";
    }
    if (c->selector == FL_SELECT_MASK) {
        uint32_t any = 0;
        for (uint32_t i = 0; i < (c->layers ? c->layers : FL_MAX_TRAINABLE); i++) {
            any |= c->mask[i];
        }
        if (!any) {
            return "mask: all zero, nothing would ever be trained";
        }
    }
    return NULL;
}

const char *fl_learner_complaint(const fl_learner_config_t *config) {
    const char *wrong = choices(config);
    wrong = wrong ? wrong : ranges(config);
    return wrong ? wrong : combinations(config);
}
