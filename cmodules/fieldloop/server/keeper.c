// The learner and what the store keeps of it (device/fieldloop/learner.py).
//
// Records of a model: STATE holds what was learned (an empty one means the factory's weights), SETTINGS how the learner
// was configured, so that it can be opened again after a start.
#include <string.h>

#include "server/server.h"

// ---- opening

static int refuse_setting(fl_server_t *s, int error, const fl_learner_config_t *config) {
    const char *complaint = fl_learner_complaint(config);
    if (complaint != NULL) {
        return fl_server_refuse(s, FL_EINVAL, "learner setting %s", complaint);
    }
    switch (error) {
        case FL_ENOENT:
            return fl_server_refuse(s, FL_EINVAL,
                "image has no trainable layers; compile it with learning switched on");
        case FL_ENOTSUP:
            return fl_server_refuse(s, FL_EINVAL,
                "no backward kernel for an operator on the way back; train fewer layers (layers=1)");
        case FL_EINVAL:
            return fl_server_refuse(s, FL_EINVAL,
                "image has fewer trainable layers than layers asks for, or it is too large");
        default: return fl_server_refuse(s, error, "the learner did not start");
    }
}

void fl_server_close_learner(fl_server_t *s) {
    if (s->has_learner) {
        s->model.overrides = NULL;
        s->model.override_count = 0;
        // It fitted before it was bound for learning.
        (void)fl_model_bind(&s->model, FL_PLAN_INFER, s->config->memory, s->config->memory_bytes);
    }
    memset(&s->learner, 0, sizeof(s->learner));
    s->has_learner = s->restored = false;
    s->seq = 0;
}

// A learner of these settings with the factory's weights, in place of the one that is open; that stays on an error.
static int start(fl_server_t *s, const fl_learner_config_t *config) {
    fl_learner_sizes_t sizes;
    int error = fl_learner_sizes(&s->model, config, &sizes);
    if (error) {
        return refuse_setting(s, error, config);
    }
    size_t arena = fl_model_arena_bytes(&s->model, FL_PLAN_LEARN);
    if (arena == 0) {
        return fl_server_refuse(s, FL_EINVAL,
            "image carries no learning plan; compile it with trainable layers");
    }
    uint64_t at = ((uint64_t)arena + 15u) & ~(uint64_t)15u, need = at + sizes.total_bytes;
    if (need > s->config->memory_bytes) {
        return fl_server_lacks(s, FL_ENOMEM, need < UINT32_MAX ? (uint32_t)need : UINT32_MAX, s->config->memory_bytes,
            "learner");
    }
    uint8_t *memory = s->config->memory;
    error = fl_model_bind(&s->model, FL_PLAN_LEARN, memory, arena);
    if (error == FL_OK) {
        error = fl_learner_init(&s->learner, &s->model, config, memory + at, sizes.total_bytes);
    }
    if (error) {
        if (!s->has_learner) {
            (void)fl_model_bind(&s->model, FL_PLAN_INFER, memory, s->config->memory_bytes);
        }
        return refuse_setting(s, error, config);
    }
    s->has_learner = true;
    s->restored = false;
    s->seq = 0;
    s->paint = -1;
    return FL_OK;
}

// ---- a stored state

static int newest(fl_server_t *s, unsigned nth, fl_store_rec_t *rec) {
    return fl_server_find(s, FL_SERVER_STATE, fl_server_uid(s), nth, rec);
}

static int refuse_state(fl_server_t *s, int error) {
    return error == FL_EINVAL
        ? fl_server_refuse(s, FL_EINVAL,
              "learned state belongs to another model or configuration; open the learner with the same settings")
        : fl_server_refuse(s, FL_EINVAL, "learned state is damaged; nothing changed");
}

// No room for a second state: what can be known before the first is given up is looked at before.
static int load_in_place(fl_server_t *s, const fl_store_rec_t *rec) {
    uint8_t head[FL_LEARNER_HEAD];
    if (rec->len < sizeof(head)) {
        return refuse_state(s, FL_EBADMSG);
    }
    int error = fl_server_read(s, rec, 0, head, sizeof(head));
    if (error) {
        return error;
    }
    error = fl_learner_fits(&s->learner, head, rec->len); // so that it has the block's length
    if (error) {
        return refuse_state(s, error);
    }
    error = fl_server_store_refuse(s, fl_store_verify(&s->store, rec));
    if (error) {
        return error;
    }
    uint8_t *block = s->learner.block;
    error = fl_server_read(s, rec, 0, block, rec->len);
    if (error == FL_OK && fl_learner_load(&s->learner, block, rec->len) == FL_OK) {
        return FL_OK;
    }
    fl_learner_reset(&s->learner); // what was there is gone
    s->seq = 0;
    return fl_server_refuse(s, error ? FL_EIO : FL_EINVAL,
        "a stored state could not be read whole; the factory's weights are in use, restore tries again");
}

static int load(fl_server_t *s, const fl_store_rec_t *rec) {
    if (rec->len == 0) {
        fl_learner_reset(&s->learner);
        return FL_OK;
    }
    uint8_t *spare;
    if (fl_server_spare(s, &spare) < rec->len) {
        return load_in_place(s, rec);
    }
    int error = fl_server_read(s, rec, 0, spare, rec->len);
    if (error) {
        return error;
    }
    error = fl_learner_load(&s->learner, spare, rec->len);
    return error ? refuse_state(s, error) : FL_OK;
}

// Back to the last commit; to the factory's weights when there is none.
static int restore(fl_server_t *s) {
    fl_store_rec_t rec;
    int error = newest(s, 0, &rec);
    if (error == FL_ENOENT) {
        fl_learner_reset(&s->learner);
        s->seq = 0;
        return FL_OK;
    }
    error = error ? error : load(s, &rec);
    if (error == FL_OK) {
        s->seq = rec.len > 0 ? rec.seq : 0;
    }
    return error;
}

// After start(): goes on from the newest commit of the same settings. A state of others stays in the store until two
// commits came after it.
static int go_on(fl_server_t *s) {
    int error = restore(s);
    if (error == FL_EINVAL) {
        error = FL_OK;
    }
    s->restored = error == FL_OK && s->seq != 0;
    return error;
}

int fl_server_learner_open(fl_server_t *s, const fl_learner_config_t *config) {
    int error = fl_server_need_no_job(s, false);
    error = error ? error : fl_server_need_model(s);
    error = error ? error : start(s, config);
    if (error) {
        return error;
    }
    error = go_on(s);
    if (error) {
        const fl_reason_t reason = fl_server_reason(s);
        fl_server_close_learner(s);
        (void)fl_server_resume(s); // the board goes on with its newest commit, if it can be read at all
        fl_server_tell(s, &reason);
    }
    return error;
}

int fl_server_resume(fl_server_t *s) {
    const uint8_t *uid = fl_server_uid(s);
    fl_store_rec_t rec;
    int error = newest(s, 0, &rec);
    if (error == FL_ENOENT || (error == FL_OK && rec.len == 0)) {
        return FL_OK;
    }
    // Settings are written before the state: a cut may leave newer ones without theirs.
    for (unsigned nth = 0; error == FL_OK && nth < 2; ++nth) {
        fl_store_rec_t settings;
        fl_learner_config_t config;
        error = fl_server_find(s, FL_SERVER_SETTINGS, uid, nth, &settings);
        if (error == FL_OK && settings.len != sizeof(config)) { // of another version of fieldloop
            continue;
        }
        error = error ? error : fl_server_read(s, &settings, 0, &config, sizeof(config));
        if (error) {
            break;
        }
        error = start(s, &config);
        if (error == FL_EINVAL) {
            error = FL_OK;
            continue;
        }
        error = error ? error : go_on(s);
        if (error == FL_OK && s->restored) {
            if (nth > 0) {
                (void)fl_server_copy(s, &settings); // else the next cut would push them out
            }
            return FL_OK;
        }
        fl_server_close_learner(s);
    }
    return error == FL_ENOENT ? FL_OK : error;
}

// ---- commits

static int append_settings(fl_server_t *s, bool *before, bool *same) {
    const fl_learner_config_t *config = &s->learner.config;
    fl_learner_config_t old;
    fl_store_rec_t rec;
    int error = fl_server_find(s, FL_SERVER_SETTINGS, fl_server_uid(s), 0, &rec);
    *before = error == FL_OK;
    *same = false;
    if (*before && rec.len == sizeof(old)) {
        error = fl_server_read(s, &rec, 0, &old, sizeof(old));
        *same = error == FL_OK && memcmp(&old, config, sizeof(old)) == 0;
    }
    if (error != FL_OK && error != FL_ENOENT) {
        return error;
    }
    const fl_store_piece_t piece = {config, sizeof(*config)};
    return *same ? FL_OK : fl_server_append(s, FL_SERVER_SETTINGS, fl_server_uid(s), &piece, 1);
}

static int append_state(fl_server_t *s) {
    const fl_store_piece_t piece = {fl_learner_state(&s->learner), s->learner.sizes.state_bytes};
    return fl_server_append(s, FL_SERVER_STATE, fl_server_uid(s), &piece, 1);
}

static int told_seq(fl_server_t *s, uint32_t *seq) {
    fl_store_rec_t rec;
    int error = newest(s, 0, &rec);
    if (error) {
        return fl_server_store_refuse(s, error);
    }
    s->seq = rec.seq;
    if (seq != NULL) {
        *seq = s->seq;
    }
    return FL_OK;
}

// A power cut at any moment leaves this commit or the one before, whole. A batch that is not full yet is averaged and
// written first: a state holds no unfinished one.
int fl_server_commit(fl_server_t *s, uint32_t *seq) {
    bool before, same;
    int error = fl_server_need_no_job(s, true);
    error = error ? error : fl_server_need_learner(s);
    if (error) {
        return error;
    }
    fl_learner_flush(&s->learner);
    error = append_settings(s, &before, &same);
    if (error) {
        return error;
    }
    error = append_state(s);
    if (error == FL_OK) {
        return told_seq(s, seq);
    }
    fl_store_rec_t old;
    const fl_reason_t reason = fl_server_reason(s);
    if (!same && before && fl_server_find(s, FL_SERVER_SETTINGS, fl_server_uid(s), 1, &old) == FL_OK) {
        // The two newest are kept; the next try must not push out the newest state's.
        (void)fl_server_copy(s, &old);
    }
    fl_server_tell(s, &reason);
    return error;
}

static int need_idle_learner(fl_server_t *s) {
    int error = fl_server_need_no_job(s, false);
    return error ? error : fl_server_need_learner(s);
}

int fl_server_restore(fl_server_t *s, uint32_t *seq) {
    int error = need_idle_learner(s);
    error = error ? error : restore(s);
    if (error == FL_OK && seq != NULL) {
        *seq = s->seq;
    }
    return error;
}

// Back to the factory's weights, for good; undo brings the last commit back.
int fl_server_reset(fl_server_t *s, uint32_t *seq) {
    int error = need_idle_learner(s);
    if (error) {
        return error;
    }
    fl_store_rec_t rec;
    uint32_t now = 0;
    error = newest(s, 0, &rec);
    if (error == FL_OK && rec.len != 0) {
        // First: when it fails nothing changed.
        error = fl_server_append(s, FL_SERVER_STATE, fl_server_uid(s), NULL, 0);
        error = error ? error : told_seq(s, &now);
    }
    if (error != FL_OK && error != FL_ENOENT) {
        return error;
    }
    fl_learner_reset(&s->learner);
    s->seq = now;
    if (seq != NULL) {
        *seq = now;
    }
    return FL_OK;
}

// Back to the commit before the last one, for good; before the first lie the factory's weights.
int fl_server_undo(fl_server_t *s, uint32_t *seq) {
    fl_store_rec_t last, before;
    int error = need_idle_learner(s);
    if (error) {
        return error;
    }
    error = newest(s, 0, &last);
    if (error == FL_ENOENT) {
        return fl_server_refuse(s, error, "nothing was committed yet");
    }
    error = error ? error : newest(s, 1, &before);
    if (error == FL_ENOENT) {
        return fl_server_reset(s, seq);
    }
    error = error ? error : load(s, &before);
    if (error) {
        return error;
    }
    error = fl_server_copy(s, &before);
    if (error == FL_OK) {
        return told_seq(s, seq);
    }
    const fl_reason_t reason = fl_server_reason(s);
    if (newest(s, 0, &last) == FL_OK) {
        (void)load(s, &last); // what cannot be kept is not done
    }
    fl_server_tell(s, &reason);
    return error;
}
