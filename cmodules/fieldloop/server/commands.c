// The commands by number, and those that are about the device and its model (device/fieldloop/commands.py).
#include <string.h>

#include "fieldloop/fl_sha256.h"
#include "server/server.h"

enum {
    OVERHEAD = 128, // of a reply that carries data: header, keys, hash, crc
};

static void put(fl_cbor_w_t *w, const char *key, uint64_t value) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_int(w, (int64_t)value);
}

static void put_text(fl_cbor_w_t *w, const char *key, const char *value) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_str(w, value);
}

// The last of its pairs. As much of it as the reply has room for: a device that is asked what is wrong answers.
static void put_fault(const fl_server_t *s, fl_cbor_w_t *w) {
    const size_t around = 6 + 2 + 10; // its key, its head, and what ends a reply: the check
    size_t room = w->cap - w->len, len = strlen(s->fault);
    if (w->overflow || len == 0 || room <= around) {
        return;
    }
    fl_cbor_put_str(w, "fault");
    fl_cbor_put_text(w, s->fault, len < room - around ? len : room - around);
}

static int info(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    static const char *const kernels[] = {
        [FL_KERNELS_PLAIN] = "plain", [FL_KERNELS_DSP] = "dsp", [FL_KERNELS_MVE] = "mve",
    };
    (void)body;
    const fl_server_config_t *config = s->config;
    uint8_t *spare;
    put(w, "proto", FL_LINK_PROTO);
    put_text(w, "ver", FL_SERVER_VERSION);
    put_text(w, "board", config->board);
    put_text(w, "os", config->os);
    put(w, "boot", s->session.boot);
    put(w, "s", s->session.id);
    put(w, "n", s->session.last);
    put(w, "buf", config->buf_bytes);
    put_text(w, "kern", kernels[fl_kernels_variant()]);
    fl_cbor_put_str(w, "slots");
    fl_cbor_put_map(w, config->slot_count);
    for (uint32_t i = 0; i < config->slot_count; ++i) {
        put(w, config->slots[i].name, fl_server_slot_bytes(s, i));
    }
    fl_cbor_put_str(w, "model");
    if (s->has_model) {
        fl_cbor_put_map(w, FL_CBOR_INDEFINITE);
        fl_server_put_model(s, w);
        fl_cbor_put_break(w);
    } else {
        fl_cbor_put_null(w);
    }
    fl_cbor_put_str(w, "learner");
    fl_cbor_put_bool(w, s->has_learner);
    put(w, "free", fl_server_spare(s, &spare));
    uint32_t counters[4] = {0, 0, 0, 0};
    if (config->port_counters != NULL) {
        config->port_counters(config->ctx, counters);
    }
    fl_cbor_put_str(w, "rx");
    fl_cbor_put_array(w, 4);
    for (uint32_t i = 0; i < 4; ++i) {
        fl_cbor_put_int(w, counters[i]);
    }
    put_fault(s, w);
    return FL_OK;
}

// ---- predictions

static int read_samples(fl_server_t *s, const fl_cbor_t *body, const uint8_t **x, uint32_t *count) {
    size_t len;
    int error = fl_server_need_model(s);
    error = error ? error : fl_server_get_bytes(s, body, "x", x, &len);
    return error ? error : fl_server_samples(s, len, count);
}

static int predict_into(fl_server_t *s, const uint8_t *x, uint8_t *y) {
    memcpy(fl_model_input(&s->model, 0), x, fl_model_input_info(&s->model, 0)->bytes);
    int best = fl_server_run(s);
    if (best >= 0) {
        memcpy(y, fl_model_output(&s->model, 0), fl_model_output_info(&s->model, 0)->bytes);
    }
    return best;
}

static int predict(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    const uint8_t *x;
    uint32_t count;
    int error = read_samples(s, body, &x, &count);
    if (error) {
        return error;
    }
    const uint32_t in = fl_model_input_info(&s->model, 0)->bytes;
    const uint32_t out = fl_model_output_info(&s->model, 0)->bytes;
    fl_cbor_put_str(w, "y");
    uint8_t *y = fl_cbor_reserve_bytes(w, (size_t)count * out);
    for (uint32_t i = 0; y != NULL && i < count; ++i) { // NULL: the reply does not fit, which its end tells
        int best = predict_into(s, x + (size_t)i * in, y + (size_t)i * out);
        if (best < 0) {
            return best;
        }
    }
    return FL_OK;
}

static int read_count(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    const uint8_t *x;
    uint32_t count;
    int error = read_samples(s, body, &x, &count);
    if (error == FL_OK && count != 1) {
        error = fl_server_refuse(s, FL_EINVAL, "x: expected one sample, got %u", (unsigned)count);
    }
    if (error) {
        return error;
    }
    fl_cbor_put_str(w, "y");
    uint8_t *y = fl_cbor_reserve_bytes(w, fl_model_output_info(&s->model, 0)->bytes);
    if (y == NULL) {
        return FL_OK;
    }
    bool counts = fl_server_count_begin(s);
    int best = predict_into(s, x, y);
    fl_server_count_end(s, counts, w);
    return best < 0 ? best : FL_OK;
}

// ---- pull

// What is pulled: the active image, or the newest record of what was learned.
typedef struct {
    const uint8_t *image; // NULL: the record
    fl_store_rec_t rec;
    uint32_t length;
} pulled_t;

static int find_pulled(fl_server_t *s, const char *kind, size_t len, pulled_t *p) {
    if (len == 5 && memcmp(kind, "image", 5) == 0) {
        p->image = s->model.image;
        p->length = s->image_bytes;
        return FL_OK;
    }
    if (len != 5 || memcmp(kind, "state", 5) != 0) {
        return fl_server_refuse(s, FL_EINVAL, "kind: expected state or image, got %.*s", (int)(len < 64 ? len : 64), kind);
    }
    p->image = NULL;
    int error = fl_server_find(s, FL_SERVER_STATE, fl_server_uid(s), 0, &p->rec);
    p->length = error == FL_OK ? p->rec.len : 0;
    if (error == FL_ENOENT || (error == FL_OK && p->length == 0)) {
        return fl_server_refuse(s, FL_ENOENT, "nothing learned is committed");
    }
    return error;
}

static int sha_of_record(fl_server_t *s, const fl_store_rec_t *rec, uint8_t sha[FL_SHA256_BYTES]) {
    uint8_t piece[64];
    fl_sha256_t st;
    fl_sha256_init(&st);
    for (uint32_t at = 0; at < rec->len;) {
        uint32_t part = rec->len - at < sizeof(piece) ? rec->len - at : (uint32_t)sizeof(piece);
        int error = fl_server_read(s, rec, at, piece, part);
        if (error) {
            return error;
        }
        fl_sha256_update(&st, piece, part);
        at += part;
    }
    fl_sha256_final(&st, sha);
    return FL_OK;
}

static int put_sha(fl_server_t *s, const pulled_t *p, fl_cbor_w_t *w) {
    uint8_t sha[FL_SHA256_BYTES];
    memcpy(sha, s->sha, sizeof(sha));
    int error = p->image != NULL ? FL_OK : sha_of_record(s, &p->rec, sha);
    fl_cbor_put_str(w, "sha");
    fl_cbor_put_bytes(w, sha, sizeof(sha));
    return error;
}

static int pull(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    const char *kind;
    size_t kind_len;
    uint32_t off, most = s->config->buf_bytes - OVERHEAD, max = most;
    int error = fl_server_need_model(s);
    error = error ? error : fl_server_get_u32(s, body, "off", &off);
    error = error ? error : fl_server_get_text(s, body, "kind", &kind, &kind_len);
    if (error == FL_OK && fl_cbor_get_u32(body, "max", &max) == FL_EINVAL) {
        error = fl_server_refuse(s, FL_EINVAL, "max: expected an unsigned 32-bit number");
    }
    pulled_t p;
    error = error ? error : find_pulled(s, kind, kind_len, &p);
    if (error) {
        return error;
    }
    most = max < most ? max : most;
    if (off > p.length || most < 1) {
        return fl_server_refuse(s, FL_EINVAL, "off: expected 0..%u, got %u", (unsigned)p.length, (unsigned)off);
    }
    uint32_t n = p.length - off < most ? p.length - off : most;
    put(w, "off", off);
    fl_cbor_put_str(w, "data");
    uint8_t *data = fl_cbor_reserve_bytes(w, n);
    if (data != NULL && p.image != NULL) {
        memcpy(data, p.image + off, n);
    } else if (data != NULL) {
        error = fl_server_read(s, &p.rec, off, data, n);
    }
    put(w, "len", p.length);
    return error || off > 0 ? error : put_sha(s, &p, w);
}

// ---- by number

fl_command_t fl_server_command(bool write, uint8_t number) {
    static const fl_command_t reads[] = {
        [0] = info, [4] = predict, [11] = fl_server_stats, [12] = pull, [13] = fl_server_read_mem,
        [14] = fl_server_read_job, [15] = read_count,
    };
    static const fl_command_t writes[] = {
        [2] = fl_server_push, [3] = fl_server_activate, [5] = fl_server_write_learner, [6] = fl_server_write_step,
        [7] = fl_server_write_commit, [8] = fl_server_write_undo, [9] = fl_server_write_reset,
        [10] = fl_server_write_restore, [13] = fl_server_write_mem, [14] = fl_server_write_job,
        [15] = fl_server_write_count,
    };
    if (number >= (write ? sizeof(writes) / sizeof(writes[0]) : sizeof(reads) / sizeof(reads[0]))) {
        return NULL;
    }
    return write ? writes[number] : reads[number];
}
