// Slots, and the active model: which of them it is, opened in place, remembered in the store.
#include <string.h>

#include "fieldloop/fl_quantize.h"
#include "fieldloop/fl_sha256.h"
#include "server/server.h"

enum {
    IMAGE_LENGTH = 8,  // of fl_image_header_t: total_bytes
    ACTIVE_NAME = 52,  // of the record: u32 image bytes, sha256[32], uid[16], then the name
};

static const uint8_t no_uid[FL_STORE_UID_BYTES];

// ---- slots

int fl_server_slot_named(fl_server_t *s, const char *name, size_t len) {
    for (uint32_t i = 0; i < s->config->slot_count; ++i) {
        const char *own = s->config->slots[i].name;
        if (strlen(own) == len && memcmp(own, name, len) == 0) {
            return (int)i;
        }
    }
    return FL_ENOENT;
}

uint32_t fl_server_slot_bytes(const fl_server_t *s, uint32_t slot) {
    const fl_flash_t *flash = s->config->slots[slot].flash;
    return flash->sector_bytes * flash->sector_count;
}

uint32_t fl_server_image_in(const fl_server_t *s, uint32_t slot) {
    const uint8_t *bytes = s->config->slots[slot].bytes;
    uint32_t magic, length;
    memcpy(&magic, bytes, sizeof(magic));
    memcpy(&length, bytes + IMAGE_LENGTH, sizeof(length));
    return magic == FL_IMAGE_MAGIC && length <= fl_server_slot_bytes(s, slot) ? length : 0;
}

void fl_server_sha_of(const fl_server_t *s, uint32_t slot, uint32_t len, uint8_t sha[32]) {
    fl_sha256_t st;
    fl_sha256_init(&st);
    fl_sha256_update(&st, s->config->slots[slot].bytes, len);
    fl_sha256_final(&st, sha);
}

const uint8_t *fl_server_uid(const fl_server_t *s) {
    return ((const fl_image_header_t *)(const void *)s->model.image)->uid;
}

// ---- opening

// All that could refuse the image, before the model that is open is let go.
static int open_in(fl_server_t *s, uint32_t slot, fl_model_t *m) {
    const fl_server_slot_t *place = &s->config->slots[slot];
    int error = fl_model_open(m, place->bytes, fl_server_slot_bytes(s, slot));
    switch (error) {
        case FL_OK: break;
        case FL_EBADMSG: return fl_server_refuse(s, error, "slot %s holds no whole .flm image", place->name);
        case FL_ENOTSUP:
            return fl_server_refuse(s, error,
                "image needs a newer fieldloop: version, section or operator unknown here; update the firmware");
        case FL_EALIGN: return fl_server_refuse(s, error, "slot %s is not at a 16-byte boundary", place->name);
        default: return fl_server_refuse(s, error, "image refused, error %d", error);
    }
    size_t arena = fl_model_arena_bytes(m, FL_PLAN_INFER);
    if (arena == 0) {
        return fl_server_refuse(s, FL_EINVAL, "image carries no inference plan; compile it again");
    }
    if (arena > s->config->memory_bytes) {
        return fl_server_lacks(s, FL_ENOMEM, (uint32_t)arena, s->config->memory_bytes, "arena");
    }
    return FL_OK;
}

void fl_server_close(fl_server_t *s) {
    fl_server_close_learner(s);
    memset(&s->model, 0, sizeof(s->model));
    s->has_model = false;
    s->job.kind = FL_JOB_NONE;
    s->paint = -1;
}

static void use(fl_server_t *s, uint32_t slot, const fl_model_t *m, const uint8_t sha[32]) {
    fl_server_close(s);
    s->model = *m;
    s->has_model = true;
    s->active = slot;
    s->image_bytes = m->image_bytes;
    memcpy(s->sha, sha, sizeof(s->sha));
    s->fault[0] = '\0';
    (void)fl_model_bind(&s->model, FL_PLAN_INFER, s->config->memory, s->config->memory_bytes);
    int error = fl_server_resume(s);
    fl_store_rec_t newest;
    if (!s->has_learner && fl_server_find(s, FL_SERVER_STATE, fl_server_uid(s), 0, &newest) == FL_OK && newest.len > 0) {
        static const char words[] = "what was learned is stored but not in use: ";
        const char *why = error ? s->text : "the settings it was learned with are not stored";
        size_t room = sizeof(s->fault) - sizeof(words), len = strlen(why);
        len = len < room ? len : room;
        memcpy(s->fault, words, sizeof(words) - 1);
        memcpy(s->fault + sizeof(words) - 1, why, len);
        s->fault[sizeof(words) - 1 + len] = '\0';
    }
}

// ---- which one is active

typedef struct {
    uint32_t length;
    uint8_t sha[32];
    uint8_t uid[FL_STORE_UID_BYTES];
    char name[FL_SERVER_NAME];
    uint32_t name_len; // above FL_SERVER_NAME: a slot of another device
} active_t;

// FL_ENOENT: none is.
static int read_active(fl_server_t *s, active_t *a) {
    uint8_t head[ACTIVE_NAME];
    fl_store_rec_t rec;
    int error = fl_server_find(s, FL_SERVER_ACTIVE, no_uid, 0, &rec);
    if (error == FL_OK && rec.len < ACTIVE_NAME) {
        return FL_ENOENT;
    }
    if (error == FL_OK) {
        error = fl_server_read(s, &rec, 0, head, sizeof(head));
    }
    if (error != FL_OK) {
        return error;
    }
    memcpy(&a->length, head, sizeof(a->length));
    memcpy(a->sha, head + 4, sizeof(a->sha));
    memcpy(a->uid, head + 36, sizeof(a->uid));
    memset(a->name, 0, sizeof(a->name));
    a->name_len = rec.len - ACTIVE_NAME;
    return fl_server_read(s, &rec, ACTIVE_NAME, a->name, a->name_len < FL_SERVER_NAME ? a->name_len : FL_SERVER_NAME - 1);
}

static int open_found(fl_server_t *s, const active_t *a) {
    int slot = a->name_len < FL_SERVER_NAME ? fl_server_slot_named(s, a->name, a->name_len) : FL_ENOENT;
    if (slot < 0) {
        return fl_server_refuse(s, FL_EINVAL, "the active model's slot %s is gone; push a model", a->name);
    }
    fl_model_t m;
    int error = open_in(s, (uint32_t)slot, &m);
    if (error) {
        return error;
    }
    const fl_image_header_t *header = (const void *)m.image;
    if (memcmp(header->uid, a->uid, sizeof(a->uid)) != 0) {
        return fl_server_refuse(s, FL_EINVAL, "slot %s holds another model than the active one", a->name);
    }
    uint8_t kept[2][FL_STORE_UID_BYTES];
    memcpy(kept[0], no_uid, sizeof(no_uid));
    memcpy(kept[1], a->uid, sizeof(a->uid));
    error = fl_server_mount(s, (const uint8_t(*)[FL_STORE_UID_BYTES])kept, 2); // those of other models give way
    if (error == FL_OK) {
        use(s, (uint32_t)slot, &m, a->sha);
    }
    return error;
}

void fl_server_open_active(fl_server_t *s) {
    active_t a;
    s->fault[0] = '\0';
    int error = read_active(s, &a);
    if (error == FL_OK) {
        error = open_found(s, &a);
    }
    if (error != FL_OK && error != FL_ENOENT) {
        memcpy(s->fault, s->text, sizeof(s->fault));
    }
}

static int append_active(fl_server_t *s, uint32_t slot, uint32_t length, const uint8_t *sha, const uint8_t *uid) {
    const char *name = s->config->slots[slot].name;
    const fl_store_piece_t pieces[] = {
        {&length, sizeof(length)}, {sha, 32}, {uid, FL_STORE_UID_BYTES}, {name, (uint32_t)strlen(name)},
    };
    return fl_server_append(s, FL_SERVER_ACTIVE, no_uid, pieces, sizeof(pieces) / sizeof(pieces[0]));
}

// Until the record is whole, the model before is the active one and keeps its records.
static int remember(fl_server_t *s, uint32_t slot, uint32_t length, const uint8_t *sha, const uint8_t *uid) {
    active_t before;
    int error = read_active(s, &before);
    if (error != FL_OK && error != FL_ENOENT) {
        return error;
    }
    uint32_t count = error == FL_OK ? 3 : 2;
    uint8_t kept[3][FL_STORE_UID_BYTES];
    const uint8_t(*uids)[FL_STORE_UID_BYTES] = (const uint8_t(*)[FL_STORE_UID_BYTES])kept;
    memcpy(kept[0], no_uid, sizeof(no_uid));
    memcpy(kept[1], uid, sizeof(kept[1]));
    memcpy(kept[2], count == 3 ? before.uid : no_uid, sizeof(kept[2]));
    error = fl_server_mount(s, uids, count);
    if (error == FL_OK) {
        error = append_active(s, slot, length, sha, uid);
    }
    if (error == FL_ENOSPC) { // no room for what both learned
        error = fl_server_mount(s, uids, 2);
        if (error == FL_OK) {
            error = append_active(s, slot, length, sha, uid);
        }
    }
    if (error == FL_OK) {
        return fl_server_mount(s, uids, 2);
    }
    const fl_reason_t reason = fl_server_reason(s);
    (void)fl_server_mount(s, uids, count);
    fl_server_tell(s, &reason);
    return error;
}

int fl_server_activate(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    const char *name;
    const uint8_t *sha;
    size_t name_len, sha_len;
    int error = fl_server_need_no_job(s, false);
    error = error ? error : fl_server_get_text(s, body, "slot", &name, &name_len);
    error = error ? error : fl_server_get_bytes(s, body, "sha", &sha, &sha_len);
    if (error) {
        return error;
    }
    int found = fl_server_slot_named(s, name, name_len);
    if (found < 0) {
        return fl_server_refuse(s, FL_ENOENT, "no slot %.*s", (int)(name_len < 64 ? name_len : 64), name);
    }
    uint32_t slot = (uint32_t)found;
    uint32_t length = fl_server_image_in(s, slot);
    uint8_t own[32];
    fl_server_sha_of(s, slot, length, own);
    if (length == 0 || sha_len != sizeof(own) || memcmp(own, sha, sizeof(own)) != 0) {
        return fl_server_refuse(s, FL_EBADMSG, "the SHA-256 of slot %s is another; push again",
            s->config->slots[slot].name);
    }
    fl_model_t m;
    error = open_in(s, slot, &m);
    if (error == FL_OK) {
        error = remember(s, slot, length, own, ((const fl_image_header_t *)(const void *)m.image)->uid);
    }
    if (error) {
        return error;
    }
    use(s, slot, &m, own);
    fl_server_put_model(s, w);
    return FL_OK;
}

// ---- what commands ask for

int fl_server_need_model(fl_server_t *s) {
    if (s->has_model) {
        return FL_OK;
    }
    return fl_server_refuse(s, FL_ENOENT, "%s",
        s->fault[0] != '\0' ? s->fault : "no model is active; push one and activate it");
}

int fl_server_need_learner(fl_server_t *s) {
    int error = fl_server_need_model(s);
    return error || s->has_learner ? error : fl_server_refuse(s, FL_ENOENT, "no learner is open; open it first");
}

// Nothing may change under a job; a paused one can at least be committed.
int fl_server_need_no_job(fl_server_t *s, bool but_paused) {
    const fl_server_job_t *job = &s->job;
    bool paused = job->state == FL_JOB_PAUSED;
    if (job->kind == FL_JOB_NONE || (job->state != FL_JOB_RUNNING && !paused) || (but_paused && paused)) {
        return FL_OK;
    }
    return fl_server_refuse(s, FL_EBUSY, "job %u is %s; wait for it or cancel it", (unsigned)job->id,
        paused ? "paused" : "running");
}

int fl_server_samples(fl_server_t *s, size_t x_bytes, uint32_t *count) {
    int error = fl_server_need_model(s);
    if (error) {
        return error;
    }
    const fl_model_t *m = &s->model;
    const fl_tensor_t *in = fl_model_input_info(m, 0), *out = fl_model_output_info(m, 0);
    if (m->input_count != 1 || m->output_count != 1 || in->dtype != FL_I8 || out->dtype != FL_I8) {
        return fl_server_refuse(s, FL_EINVAL, "x: expected a model of one int8 input and one int8 output");
    }
    *count = (uint32_t)(x_bytes / in->bytes);
    if (*count == 0 || x_bytes % in->bytes != 0) {
        return fl_server_refuse(s, FL_EINVAL, "x: expected samples of %u bytes each, got %u bytes",
            (unsigned)in->bytes, (unsigned)x_bytes);
    }
    return FL_OK;
}

int fl_server_run(fl_server_t *s) {
    if (fl_model_run(&s->model) != FL_OK) {
        return fl_server_refuse(s, FL_EINVAL, "the model did not run; activate it again");
    }
    return (int)fl_argmax(fl_model_output_info(&s->model, 0), fl_model_output(&s->model, 0));
}

static void put_shape(fl_cbor_w_t *w, const char *key, const fl_tensor_t *t) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_array(w, t->ndim);
    for (uint32_t i = 0; i < t->ndim; ++i) {
        fl_cbor_put_int(w, t->shape[i]);
    }
}

static void put_quantisation(fl_cbor_w_t *w, const char *key, const fl_tensor_t *t) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_array(w, 2);
    fl_cbor_put_f32(w, t->scale);
    fl_cbor_put_int(w, t->zero_point);
}

void fl_server_put_model(const fl_server_t *s, fl_cbor_w_t *w) {
    const fl_tensor_t *in = fl_model_input_info(&s->model, 0), *out = fl_model_output_info(&s->model, 0);
    uint32_t cursor = 0, bytes = 0;
    const void *data;
    bool learn = fl_image_section(s->model.image, FL_SECTION_LEARN, &cursor, &data, &bytes) == FL_OK;
    fl_cbor_put_str(w, "slot");
    fl_cbor_put_str(w, s->config->slots[s->active].name);
    fl_cbor_put_str(w, "sha");
    fl_cbor_put_bytes(w, s->sha, sizeof(s->sha));
    fl_cbor_put_str(w, "len");
    fl_cbor_put_int(w, s->image_bytes);
    put_shape(w, "in", in);
    put_shape(w, "out", out);
    put_quantisation(w, "in_q", in);
    put_quantisation(w, "out_q", out);
    fl_cbor_put_str(w, "learn");
    fl_cbor_put_bool(w, learn && bytes >= sizeof(fl_trainable_t));
}
