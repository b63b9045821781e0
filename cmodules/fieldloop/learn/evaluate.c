// Around the training: predictions on what was held out, and samples as real values.
#include <string.h>

#include "core/image.h"
#include "fieldloop/fl_error.h"
#include "fieldloop/fl_quantize.h"
#include "learner.h"

int fl_learner_evaluate(fl_learner_t *l, uint32_t *right, uint32_t *total) {
    fl_model_t *m = l->model;
    if (!fl_learner_is_bound(m)) {
        return FL_EINVAL;
    }
    uint32_t logits = m->ops[l->last_op].out[0];
    *right = 0;
    *total = 0;
    for (uint32_t i = 0; i < l->rehearsal_count; i++) {
        if (l->config.holdout && !fl_is_held_out(&l->config, i)) {
            continue;
        }
        memcpy(fl_model_input(m, 0), l->rehearsal_samples + (size_t)i * l->sample_bytes, l->sample_bytes);
        int err = fl_model_run_ops(m, 0, l->last_op + 1);
        if (err) {
            return err;
        }
        *right += fl_argmax(&m->tensors[logits], fl_model_tensor(m, logits)) == l->rehearsal_labels[i];
        (*total)++;
    }
    return FL_OK;
}

// Is x, in steps of the scale and rounded as fl_quantize rounds it, beyond what an int8 holds? Whole numbers beside the
// doubles, as there.
static int is_beyond(float x, float scale, int32_t zero_point) {
    double twice = 2 * ((double)x / (double)scale);
    int32_t highest = 127 - zero_point;
    int32_t lowest = -128 - zero_point;
    // a half goes to the even neighbour
    return twice > 2 * highest + 1 || (twice == 2 * highest + 1 && (highest & 1) != 0) || twice < 2 * lowest - 1 ||
           (twice == 2 * lowest - 1 && (lowest & 1) != 0);
}

int fl_learner_quantize(fl_learner_t *l, const float *x, int8_t *q) {
    const fl_tensor_t *in = fl_model_input_info(l->model, 0);
    fl_learner_stats_t *stats = &fl_state(l)->stats;
    int clamped = 0;
    for (uint32_t i = 0; i < l->sample_bytes; i++) {
        if (!fl_is_finite(x[i])) {
            stats->refused++;
            return FL_EDOM;
        }
        clamped |= is_beyond(x[i], in->scale, in->zero_point);
    }
    fl_quantize(in, x, q, l->sample_bytes);
    stats->clamped += (uint32_t)clamped;
    return FL_OK;
}
