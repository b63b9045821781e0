// Commands of the learner, and what the firmware itself asks of it.
#include <string.h>

#include "server/server.h"

static void put(fl_cbor_w_t *w, const char *key, uint64_t value) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_int(w, (int64_t)value);
}

// Of two equal keys the first counts: is `key` among the first `count` of the pairs at `at`?
static bool came_before(fl_cbor_t at, size_t count, const fl_cbor_item_t *key) {
    fl_cbor_item_t other;
    for (size_t i = 0; i < count && fl_cbor_next(&at, &other) == FL_OK && fl_cbor_skip(&at) == FL_OK; ++i) {
        if (other.type == FL_CBOR_TEXT && other.len == key->len && memcmp(other.ptr, key->ptr, key->len) == 0) {
            return true;
        }
    }
    return false;
}

int fl_server_write_learner(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    int error = fl_server_need_no_job(s, false);
    error = error ? error : fl_server_need_model(s);
    if (error) {
        return error;
    }
    fl_learner_config_t config;
    fl_learner_defaults(&config);
    fl_cbor_t at;
    fl_cbor_item_t item = {.type = FL_CBOR_NULL};
    error = fl_cbor_find(body, "cfg", &at);
    if (error == FL_OK) {
        error = fl_cbor_next(&at, &item);
    }
    if (error == FL_ENOENT) {
        return fl_server_refuse(s, FL_EINVAL, "the request lacks `cfg`");
    }
    if (error || item.type != FL_CBOR_MAP) {
        return fl_server_refuse(s, FL_EINVAL, "cfg: expected a map of settings");
    }
    const fl_cbor_t first = at;
    for (size_t i = 0; i < item.len; ++i) { // FL_CBOR_INDEFINITE never ends by itself
        fl_cbor_item_t key;
        error = fl_cbor_next(&at, &key);
        if (error == FL_OK && key.type == FL_CBOR_BREAK && item.len == FL_CBOR_INDEFINITE) {
            break;
        }
        if (error || key.type != FL_CBOR_TEXT) {
            return fl_server_refuse(s, FL_EINVAL, "cfg: expected the names of settings");
        }
        if (!came_before(first, i, &key) &&
            fl_server_setting(&config, (const char *)key.ptr, key.len, at, s->text) != FL_OK) {
            s->lack.need = s->lack.have = 0;
            return FL_EINVAL;
        }
        if (fl_cbor_skip(&at) != FL_OK) {
            return fl_server_refuse(s, FL_EINVAL, "cfg: expected a map of settings");
        }
    }
    error = fl_server_learner_open(s, &config);
    if (error) {
        return error;
    }
    put(w, "bytes", (uint64_t)s->model.arena_bytes + s->learner.sizes.total_bytes);
    put(w, "seq", s->seq);
    fl_cbor_put_str(w, "restored");
    fl_cbor_put_bool(w, s->restored);
    return FL_OK;
}

// ---- steps

static int step(fl_server_t *s, const int8_t *x, uint32_t label, fl_step_t *done) {
    int error = fl_learner_step(&s->learner, x, label, done);
    return error ? fl_server_refuse(s, error, "the sample was not learned; nothing changed") : FL_OK;
}

typedef struct {
    const int8_t *x;
    const uint8_t *y;
    uint32_t count;
} batch_t;

// All that a request may be refused for comes before its first step, so that a refused call changed nothing.
static int read_batch(fl_server_t *s, const fl_cbor_t *body, batch_t *batch) {
    const uint8_t *x;
    size_t x_len, y_len;
    int error = fl_server_need_no_job(s, false);
    error = error ? error : fl_server_need_learner(s);
    error = error ? error : fl_server_get_bytes(s, body, "x", &x, &x_len);
    error = error ? error : fl_server_get_bytes(s, body, "y", &batch->y, &y_len);
    error = error ? error : fl_server_samples(s, x_len, &batch->count);
    if (error) {
        return error;
    }
    if (y_len != batch->count) {
        return fl_server_refuse(s, FL_EINVAL, "y: expected %u labels, got %u", (unsigned)batch->count,
            (unsigned)y_len);
    }
    for (uint32_t i = 0; i < batch->count; ++i) {
        if (batch->y[i] >= s->learner.classes) {
            return fl_server_refuse(s, FL_EINVAL, "label: expected 0..%u, got %u", (unsigned)s->learner.classes - 1,
                (unsigned)batch->y[i]);
        }
    }
    batch->x = (const int8_t *)x;
    return FL_OK;
}

static int step_all(fl_server_t *s, const batch_t *batch, fl_cbor_w_t *w) {
    const uint32_t size = fl_model_input_info(&s->model, 0)->bytes;
    const fl_learner_stats_t before = *fl_learner_stats(&s->learner);
    uint32_t hit = 0;
    double loss = 0.0; // a sum of floats: exact enough for the float that is told
    for (uint32_t i = 0; i < batch->count; ++i) {
        fl_step_t done;
        int error = step(s, batch->x + (size_t)i * size, batch->y[i], &done);
        if (error) {
            return error;
        }
        hit += done.predicted == batch->y[i];
        loss += (double)done.error;
    }
    const fl_learner_stats_t *after = fl_learner_stats(&s->learner);
    put(w, "k", batch->count);
    put(w, "hit", hit);
    fl_cbor_put_str(w, "loss");
    fl_cbor_put_f32(w, (float)loss);
    put(w, "trained", after->trained - before.trained);
    put(w, "macs", after->backward_macs - before.backward_macs);
    return FL_OK;
}

int fl_server_write_step(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    batch_t batch;
    int error = read_batch(s, body, &batch);
    return error ? error : step_all(s, &batch, w);
}

int fl_server_write_count(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    batch_t batch;
    int error = read_batch(s, body, &batch);
    if (error == FL_OK && batch.count != 1) {
        error = fl_server_refuse(s, FL_EINVAL, "expected one sample and one label below %u",
            (unsigned)s->learner.classes);
    }
    if (error) {
        return error;
    }
    bool counts = fl_server_count_begin(s);
    error = step_all(s, &batch, w);
    fl_server_count_end(s, counts, w);
    return error;
}

// ---- commits

int fl_server_write_commit(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    (void)body;
    uint32_t seq;
    int error = fl_server_commit(s, &seq);
    if (error) {
        return error;
    }
    put(w, "seq", seq);
    put(w, "bytes", s->learner.sizes.state_bytes);
    return FL_OK;
}

static int put_seq(fl_server_t *s, fl_cbor_w_t *w, int (*call)(fl_server_t *s, uint32_t *seq)) {
    uint32_t seq;
    int error = call(s, &seq);
    if (error == FL_OK) {
        put(w, "seq", seq);
    }
    return error;
}

int fl_server_write_undo(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    (void)body;
    return put_seq(s, w, fl_server_undo);
}

int fl_server_write_reset(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    (void)body;
    return put_seq(s, w, fl_server_reset);
}

int fl_server_write_restore(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    (void)body;
    return put_seq(s, w, fl_server_restore);
}

// ---- counters

static void put_layer(fl_server_t *s, fl_cbor_w_t *w, uint32_t i) {
    const fl_layer_t *layer = &s->learner.layers[i];
    const fl_layer_stats_t *stats = fl_learner_layer_stats(&s->learner, i);
    fl_cbor_put_map(w, 7);
    put(w, "op", layer->op);
    put(w, "entries", stats->entries);
    put(w, "kept", stats->kept);
    fl_cbor_put_str(w, "ratio");
    fl_cbor_put_f32(w, stats->entries == 0 ? 0.0f : (float)((double)stats->kept / (double)stats->entries));
    put(w, "clipped", stats->clipped);
    put(w, "weights", (uint64_t)layer->rows * layer->row_bytes);
    put(w, "saturated", fl_learner_saturated(&s->learner, i));
}

int fl_server_stats(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    int error = fl_server_need_learner(s);
    if (error) {
        return error;
    }
    const fl_learner_stats_t *stats = fl_learner_stats(&s->learner);
    put(w, "samples", stats->samples);
    put(w, "replayed", stats->replayed);
    put(w, "trained", stats->trained);
    put(w, "skipped", stats->skipped);
    put(w, "refused", stats->refused);
    put(w, "remembered", stats->remembered);
    put(w, "clamped", stats->clamped);
    put(w, "updates", stats->updates);
    put(w, "clipped", stats->clipped);
    put(w, "forward_macs", stats->forward_macs);
    put(w, "backward_macs", stats->backward_macs);
    put(w, "dense_backward_macs", stats->dense_backward_macs);
    bool layers = false;
    if (fl_cbor_get_bool(body, "layers", &layers) == FL_OK && layers) {
        fl_cbor_put_str(w, "layers");
        fl_cbor_put_array(w, s->learner.layer_count);
        for (uint32_t i = 0; i < s->learner.layer_count; ++i) {
            put_layer(s, w, i);
        }
    }
    return FL_OK;
}
