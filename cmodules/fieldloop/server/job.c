// Jobs: long work in pieces of one sample, so that the host is answered meanwhile. docs/SPEC-link.md, section 6;
// device/fieldloop/jobs.py is the same on MicroPython.
#include "server/job.h"

#include <string.h>

#include "fieldloop/fl_error.h"

// ---- what a request says

static int take_number(fl_server_t *s, int error, const char *key, uint32_t least, int64_t value, uint32_t *v) {
    if (error != FL_OK) {
        return fl_server_refuse(s, FL_EINVAL, "%s: expected a number", key);
    }
    if (value < (int64_t)least) {
        long got = value < INT32_MIN ? (long)INT32_MIN : (long)value; // as far as a 32-bit part can tell it
        return fl_server_refuse(s, FL_EINVAL, "%s: expected %u or more, got %ld", key, (unsigned)least, got);
    }
    if (value > (int64_t)UINT32_MAX) {
        return fl_server_refuse(s, FL_EINVAL, "%s: expected %u to 4294967295, got more", key, (unsigned)least);
    }
    *v = (uint32_t)value;
    return FL_OK;
}

int fl_job_number(fl_server_t *s, const fl_cbor_t *body, const char *key, uint32_t least, uint32_t usual, uint32_t *v) {
    int64_t value = usual;
    int error = fl_cbor_get_int(body, key, &value);
    return take_number(s, error == FL_ENOENT ? FL_OK : error, key, least, value, v);
}

int fl_job_needed(fl_server_t *s, const fl_cbor_t *body, const char *key, uint32_t least, uint32_t *v) {
    int64_t value = 0;
    int error = fl_cbor_get_int(body, key, &value);
    if (error == FL_ENOENT) {
        return fl_server_refuse(s, FL_EINVAL, "the request lacks `%s`", key);
    }
    return take_number(s, error, key, least, value, v);
}

bool fl_job_truth(const fl_cbor_t *body, const char *key) {
    fl_cbor_t at;
    fl_cbor_item_t item;
    if (fl_cbor_find(body, key, &at) != FL_OK || fl_cbor_next(&at, &item) != FL_OK) {
        return false;
    }
    switch (item.type) {
        case FL_CBOR_INT:
        case FL_CBOR_BOOL: return item.i != 0;
        case FL_CBOR_FLOAT: return item.f != 0.0f;
        case FL_CBOR_NULL:
        case FL_CBOR_BREAK: return false;
        default: return item.len != 0; // as Python has it: what is empty is false
    }
}

// ---- the samples

fl_job_samples_t fl_job_samples(const fl_server_t *s) {
    fl_job_samples_t none = {NULL, NULL, 0, 0};
    uint32_t cursor = 0, bytes;
    const void *data;
    if (fl_image_section(s->model.image, FL_SECTION_REHEARSAL, &cursor, &data, &bytes) != FL_OK) {
        return none;
    }
    const fl_rehearsal_set_t *set = data;
    const uint8_t *labels = (const uint8_t *)(set + 1);
    fl_job_samples_t samples = {
        .labels = labels,
        .samples = (const int8_t *)(labels + ((set->count + 15u) & ~(size_t)15u)),
        .count = set->count,
        .sample_bytes = set->sample_bytes,
    };
    return samples;
}

int fl_job_predict(fl_server_t *s, uint32_t i, bool *right) {
    fl_job_samples_t set = fl_job_samples(s);
    memcpy(fl_model_input(&s->model, 0), set.samples + (size_t)i * set.sample_bytes, set.sample_bytes);
    int class = fl_server_run(s);
    if (class < 0) {
        return class;
    }
    *right = class == set.labels[i];
    return FL_OK;
}

// ---- a job's life

static bool is_active(const fl_server_job_t *job) {
    return job->kind != FL_JOB_NONE && (job->state == FL_JOB_RUNNING || job->state == FL_JOB_PAUSED);
}

static void fail(fl_server_t *s) {
    s->job.state = FL_JOB_FAILED;
    memcpy(s->job.text, s->text, sizeof(s->job.text));
}

static void end(fl_server_t *s, fl_job_state_t state) {
    fl_server_job_t *job = &s->job;
    job->state = state; // first: what is over may commit
    if (job->kind != FL_JOB_TRAIN) {
        (void)fl_server_refuse(s, FL_OK, "%u of %u samples right", (unsigned)job->right, (unsigned)job->total);
        memcpy(job->text, s->text, sizeof(job->text)); // it formats, and here nothing is refused
    } else if (fl_job_train_finish(s) != FL_OK) {
        fail(s);
    }
}

static int predict_piece(fl_server_t *s, bool *over) {
    fl_server_job_t *job = &s->job;
    uint32_t i = job->kind == FL_JOB_SELFTEST ? job->done % fl_job_samples(s).count
                                              : fl_job_held_out(job, job->done % job->held);
    bool right;
    int error = fl_job_predict(s, i, &right);
    if (error != FL_OK) {
        return error;
    }
    job->right += right;
    job->total = ++job->done;
    *over = job->done == job->of;
    return FL_OK;
}

bool fl_server_busy(const fl_server_t *s) {
    return s->job.kind != FL_JOB_NONE && s->job.state == FL_JOB_RUNNING;
}

void fl_server_advance(fl_server_t *s) {
    if (!fl_server_busy(s)) {
        return;
    }
    bool over = false;
    int error = s->job.kind == FL_JOB_TRAIN ? fl_job_train_piece(s, &over) : predict_piece(s, &over);
    if (error != FL_OK) {
        fail(s);
    } else if (over) {
        end(s, FL_JOB_DONE);
    }
}

// ---- the commands

static void put_number(fl_cbor_w_t *w, const char *key, uint32_t v) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_int(w, v);
}

static void put_true(fl_cbor_w_t *w, const char *key) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_bool(w, true);
}

static void put_status(const fl_server_job_t *job, fl_cbor_w_t *w) {
    static const char *const states[] = {"running", "paused", "done", "cancelled", "failed"};
    put_number(w, "job", job->id);
    fl_cbor_put_str(w, "state");
    fl_cbor_put_str(w, states[job->state]);
    put_number(w, "done", job->done);
    put_number(w, "of", job->of);
    if (job->total != 0) {
        put_number(w, "right", job->right);
        put_number(w, "total", job->total);
    }
    if (job->text[0] != '\0') {
        fl_cbor_put_str(w, "msg");
        fl_cbor_put_str(w, job->text);
    }
    if (job->kind != FL_JOB_TRAIN) {
        return;
    }
    put_number(w, "hit", job->hit);
    if (job->every != 0) {
        put_number(w, "evals", job->looks);
    }
    if (job->looks != 0) {
        put_number(w, "best", job->best);
    }
    if (job->early) {
        put_true(w, "early");
    }
    if (job->back) {
        put_true(w, "back");
    }
    if (job->committed) {
        put_number(w, "seq", job->seq);
    }
}

// There is one, and it is the one that the request names.
static int need_named(fl_server_t *s, const fl_cbor_t *body) {
    uint32_t id;
    int error = fl_job_needed(s, body, "job", 0, &id);
    if (error == FL_OK && (s->job.kind == FL_JOB_NONE || id != s->job.id)) {
        error = fl_server_refuse(s, FL_ENOENT, "no job %u since this model was opened", (unsigned)id);
    }
    return error;
}

int fl_server_read_job(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    int error = need_named(s, body);
    if (error == FL_OK) {
        put_status(&s->job, w);
    }
    return error;
}

typedef enum { DO_UNKNOWN, DO_PAUSE, DO_RESUME, DO_CANCEL, DO_TRAIN, DO_EVALUATE, DO_SELFTEST } do_t;

static do_t which(const char *word, size_t n) {
    static const struct { const char *word; do_t what; } known[] = {
        {"pause", DO_PAUSE}, {"resume", DO_RESUME},     {"cancel", DO_CANCEL},
        {"train", DO_TRAIN}, {"evaluate", DO_EVALUATE}, {"selftest", DO_SELFTEST},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (n == strlen(known[i].word) && memcmp(word, known[i].word, n) == 0) {
            return known[i].what;
        }
    }
    return DO_UNKNOWN;
}

// What a job is not in a state for does nothing.
static void control(fl_server_t *s, do_t what) {
    fl_server_job_t *job = &s->job;
    if (what == DO_PAUSE && job->state == FL_JOB_RUNNING) {
        job->state = FL_JOB_PAUSED;
    } else if (what == DO_RESUME && job->state == FL_JOB_PAUSED) {
        job->state = FL_JOB_RUNNING;
    } else if (what == DO_CANCEL && is_active(job)) {
        end(s, FL_JOB_CANCELLED);
    }
}

static int begin(fl_server_t *s, const fl_cbor_t *body, do_t what, fl_server_job_t *job) {
    if (what == DO_TRAIN) {
        job->kind = FL_JOB_TRAIN;
        return fl_job_train_begin(s, body, job);
    }
    job->looking = FL_JOB_LOOKS_NOT;
    if (what == DO_SELFTEST) {
        job->kind = FL_JOB_SELFTEST;
        return fl_job_needed(s, body, "of", 1, &job->of);
    }
    job->kind = FL_JOB_EVALUATE;
    int error = fl_job_split(s, job);
    return error == FL_OK ? fl_job_number(s, body, "of", 1, job->held, &job->of) : error;
}

static int start(fl_server_t *s, const fl_cbor_t *body, do_t what, fl_cbor_w_t *w) {
    int error = fl_server_need_model(s);
    if (error == FL_OK && what != DO_SELFTEST) {
        error = fl_server_need_learner(s);
    }
    if (error != FL_OK) {
        return error;
    }
    if (fl_job_samples(s).count == 0) {
        return fl_server_refuse(s, FL_ENOENT, "the image carries no samples to work on");
    }
    if (s->model.input_count != 1) { // a sample is one tensor
        return fl_server_refuse(s, FL_EINVAL, "job: expected a model of one input, this one has %u",
            (unsigned)s->model.input_count);
    }
    s->jobs++;
    fl_server_job_t job = {.kind = FL_JOB_NONE, .state = FL_JOB_RUNNING, .id = s->jobs};
    error = begin(s, body, what, &job);
    if (error == FL_OK) { // else the one before stays to be asked about
        s->job = job;
        put_number(w, "job", s->jobs);
    }
    return error;
}

int fl_server_write_job(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    const char *word;
    size_t n;
    int error = fl_server_get_text(s, body, "do", &word, &n);
    if (error != FL_OK) {
        return error;
    }
    do_t what = which(word, n);
    if (what == DO_PAUSE || what == DO_RESUME || what == DO_CANCEL) {
        error = need_named(s, body);
        if (error == FL_OK) {
            control(s, what);
            put_status(&s->job, w);
        }
        return error;
    }
    error = fl_server_need_no_job(s, false);
    if (error == FL_OK && what == DO_UNKNOWN) {
        error = fl_server_refuse(s, FL_EINVAL,
            "do: expected evaluate, selftest, train, pause, resume or cancel, got %.*s", n > 40 ? 40 : (int)n, word);
    }
    return error == FL_OK ? start(s, body, what, w) : error;
}
