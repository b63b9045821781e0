// RAM: what is left of it, what the plan says, and how much of it a run really touches.
#include <string.h>

#include "server/server.h"

uint32_t fl_server_spare(const fl_server_t *s, uint8_t **at) {
    uint32_t used = 0;
    if (s->has_model) {
        used = (s->model.arena_bytes + 15u) & ~15u;
    }
    if (s->has_learner) {
        used = (used + s->learner.sizes.total_bytes + 15u) & ~15u;
    }
    used = used < s->config->memory_bytes ? used : s->config->memory_bytes;
    *at = s->config->memory + used;
    return s->config->memory_bytes - used;
}

static uint32_t arena_of(const fl_server_t *s) {
    return s->model.arena_bytes + (s->has_learner ? s->learner.sizes.total_bytes : 0);
}

// Highest byte that is not as it was painted, plus one.
static uint32_t touched(const uint8_t *p, uint32_t n, uint8_t paint) {
    while (n > 0 && p[n - 1] == paint) {
        --n;
    }
    return n;
}

static void put(fl_cbor_w_t *w, const char *key, uint32_t value) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_int(w, value);
}

int fl_server_read_mem(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    (void)body;
    int error = fl_server_need_model(s);
    if (error) {
        return error;
    }
    uint32_t used = 0;
    uint8_t *spare;
    if (s->paint >= 0) {
        used = touched(s->model.arena, s->model.arena_bytes, (uint8_t)s->paint);
        if (s->has_learner) {
            used += touched(s->learner.block, s->learner.sizes.total_bytes, (uint8_t)s->paint);
        }
    }
    put(w, "arena", arena_of(s));
    put(w, "used", used);
    put(w, "free", fl_server_spare(s, &spare));
    if (s->has_learner) {
        const fl_learner_sizes_t *sizes = &s->learner.sizes;
        fl_cbor_put_str(w, "plan");
        fl_cbor_put_map(w, 9);
        put(w, "total", arena_of(s));
        put(w, "arena", s->model.arena_bytes);
        put(w, "state", sizes->state_bytes);
        put(w, "weights", sizes->weight_bytes);
        put(w, "optimizer", sizes->optimizer_bytes);
        put(w, "memory", sizes->memory_bytes);
        put(w, "scratch", sizes->scratch_bytes);
        put(w, "lent", sizes->lent_bytes);
        put(w, "batch", sizes->batch_bytes);
    }
    return FL_OK;
}

// What was learned stays: the state is no scratch, so it is not painted but loaded where it lies, which empties the batch
// as a load from elsewhere would.
int fl_server_write_mem(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    uint32_t paint = 0;
    int error = fl_server_need_no_job(s, false);
    error = error ? error : fl_server_need_model(s);
    error = error ? error : fl_server_get_u32(s, body, "paint", &paint);
    if (error) {
        return error;
    }
    paint &= 255u;
    memset(s->model.arena, (int)paint, s->model.arena_bytes);
    if (s->has_learner) {
        fl_learner_t *l = &s->learner;
        memset(l->block + l->sizes.state_bytes, (int)paint, l->sizes.total_bytes - l->sizes.state_bytes);
        if (fl_learner_load(l, l->block, l->sizes.state_bytes) != FL_OK) {
            return fl_server_refuse(s, FL_EINVAL, "the learner's state is damaged; restore brings the last commit back");
        }
    }
    s->paint = (int32_t)paint;
    put(w, "arena", arena_of(s));
    return FL_OK;
}
