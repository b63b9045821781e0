// Training on the samples that travel with the model: which of them, in which order, evaluations in between, and the
// best state. docs/SPEC-link.md, section 6, *job*; device/fieldloop/jobs.py and best.py are the same on MicroPython.
#include <string.h>

#include "fieldloop/fl_error.h"
#include "server/job.h"

// ---- which samples

static uint32_t common_divisor(uint32_t a, uint32_t b) {
    while (b != 0) {
        uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int fl_job_split(fl_server_t *s, fl_server_job_t *job) {
    uint32_t count = fl_job_samples(s).count;
    job->split = s->learner.config.holdout;
    job->held = job->split == 0 ? count : count / job->split;
    if (job->held == 0) {
        return fl_server_refuse(s, FL_EINVAL, "holdout %u of %u samples is none", (unsigned)job->split,
            (unsigned)count);
    }
    job->own = job->split == 0 ? count : count - job->held;
    // An image may hold one class after the other: steps of about the golden section mix them.
    job->stride = (uint32_t)((uint64_t)job->own * 5 / 8);
    if (job->stride == 0) {
        job->stride = 1;
    }
    while (common_divisor(job->stride, job->own) != 1) {
        job->stride++;
    }
    return FL_OK;
}

uint32_t fl_job_held_out(const fl_server_job_t *job, uint32_t i) {
    return job->split == 0 ? i : (i + 1) * job->split - 1;
}

// The sample that step number `step` is made with.
static uint32_t trained(const fl_server_job_t *job, uint32_t step) {
    uint32_t i = (uint32_t)((uint64_t)(step % job->own) * job->stride % job->own);
    return job->split == 0 ? i : i + i / (job->split - 1);
}

// ---- the best evaluation, and when to stop a run that no longer gets better

// The state that the best evaluation was made with lies behind arena and learner, where there is room.
static void keep(fl_server_t *s) {
    fl_server_job_t *job = &s->job;
    uint8_t *at;
    uint32_t room = fl_server_spare(s, &at);
    uint32_t bytes = s->learner.sizes.state_bytes;
    job->kept = room >= bytes;
    if (job->kept) {
        memcpy(at, fl_learner_state(&s->learner), bytes);
    }
}

// Takes an evaluation; true when it is time to stop.
static bool look(fl_server_t *s) {
    fl_server_job_t *job = &s->job;
    bool first = job->looks++ == 0;
    if (first || job->right > job->best) {
        job->best = job->right;
        job->misses = 0;
        if (job->patience != 0) {
            keep(s);
        }
        return false;
    }
    job->misses++;
    return job->patience != 0 && job->misses >= job->patience;
}

// Ends a run with its best state, counters and rehearsal memory included.
static int bring_back(fl_server_t *s) {
    fl_server_job_t *job = &s->job;
    if (job->misses == 0 || !job->kept) {
        return FL_OK;
    }
    uint8_t *at;
    (void)fl_server_spare(s, &at);
    int error = fl_learner_load(&s->learner, at, s->learner.sizes.state_bytes);
    if (error != FL_OK) {
        return fl_server_refuse(s, error, "the best state was overwritten; what the last steps learned stays");
    }
    job->misses = 0;
    job->back = true;
    return FL_OK;
}

// ---- the job

int fl_job_train_begin(fl_server_t *s, const fl_cbor_t *body, fl_server_job_t *job) {
    int error = fl_job_number(s, body, "every", 0, 0, &job->every);
    if (error == FL_OK) {
        error = fl_job_number(s, body, "patience", 0, 0, &job->patience);
    }
    if (error == FL_OK && job->patience != 0 && job->every == 0) {
        error = fl_server_refuse(s, FL_EINVAL, "patience: expected every, the steps from evaluation to the next");
    }
    if (error == FL_OK) {
        error = fl_job_split(s, job);
    }
    if (error == FL_OK) {
        error = fl_job_needed(s, body, "of", 1, &job->of);
    }
    job->commit = fl_job_truth(body, "commit");
    job->looking = job->every != 0 ? 0 : FL_JOB_LOOKS_NOT;
    return error;
}

static int evaluate_one(fl_server_t *s, bool *over) {
    fl_server_job_t *job = &s->job;
    bool right;
    int error = fl_job_predict(s, fl_job_held_out(job, job->looking), &right);
    if (error != FL_OK) {
        return error;
    }
    job->so_far += right;
    if (++job->looking < job->held) {
        return FL_OK;
    }
    job->looking = FL_JOB_LOOKS_NOT;
    job->right = job->so_far;
    job->total = job->held;
    job->early = look(s) && job->done < job->of;
    *over = job->early || job->done == job->of;
    return FL_OK;
}

int fl_job_train_piece(fl_server_t *s, bool *over) {
    fl_server_job_t *job = &s->job;
    if (job->looking != FL_JOB_LOOKS_NOT) {
        return evaluate_one(s, over);
    }
    fl_job_samples_t set = fl_job_samples(s);
    uint32_t i = trained(job, job->done);
    fl_step_t step;
    int error = fl_learner_train(&s->learner, set.samples + (size_t)i * set.sample_bytes, set.labels[i], &step);
    if (error != FL_OK) {
        return fl_server_refuse(s, error, "the sample was not learned; nothing changed");
    }
    job->hit += step.predicted == set.labels[i];
    job->done++;
    if (job->every != 0 && (job->done % job->every == 0 || job->done == job->of)) {
        fl_learner_flush(&s->learner);  // an evaluation is of all that was trained
        job->looking = job->so_far = 0;
        return FL_OK;
    }
    *over = job->done == job->of;
    return FL_OK;
}

int fl_job_train_finish(fl_server_t *s) {
    fl_server_job_t *job = &s->job;
    fl_learner_flush(&s->learner);
    if (job->state != FL_JOB_DONE) {
        return FL_OK;
    }
    int error = bring_back(s);
    if (error == FL_OK && job->patience != 0 && !job->kept) {
        static const char none[] = "no memory to keep the best state beside the newest";
        memcpy(job->text, none, sizeof(none));
    }
    if (error == FL_OK && job->commit) {
        error = fl_server_commit(s, &job->seq);
        job->committed = error == FL_OK;
    }
    return error;
}
