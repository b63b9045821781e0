// Push: takes an image from the host in chunks, into a slot. One at a time: the slot, the length, the SHA-256, and the
// offset expected next (device/fieldloop/push.py).
#include <stdio.h>
#include <string.h>

#include "server/server.h"

static int write_failed(fl_server_t *s, int error) {
    s->pushing = false; // a place that may be half-written is begun anew
    if (error == FL_EINVAL) {
        return fl_server_refuse(s, error, "slot: expected the chunk at byte %u of %u", (unsigned)s->writer.next,
            (unsigned)s->writer.total);
    }
    return fl_server_refuse(s, FL_EIO, "slot: the flash failed; begin again");
}

static bool is_there(const fl_server_t *s) {
    uint8_t own[32];
    if (fl_server_image_in(s, s->push_slot) != s->push_length) {
        return false;
    }
    fl_server_sha_of(s, s->push_slot, s->push_length, own);
    return memcmp(own, s->push_sha, sizeof(own)) == 0;
}

// A model runs from the bytes that are about to be erased. Not only at the beginning: what is written once more with
// the same bytes has its SHA-256 before it is written to the end, and then somebody may activate it.
static void take_from_model(fl_server_t *s) {
    if (s->has_model && s->active == s->push_slot) {
        fl_server_close(s);
    }
}

static int begin(fl_server_t *s, uint32_t slot, uint32_t length, const uint8_t *sha) {
    s->pushing = false;
    s->push_named = sha != NULL;
    s->push_slot = slot;
    s->push_length = length;
    memset(s->push_sha, 0, sizeof(s->push_sha));
    if (sha != NULL) {
        memcpy(s->push_sha, sha, sizeof(s->push_sha));
    }
    s->match = s->push_named && is_there(s);
    s->push_next = s->match ? length : 0;
    if (s->match) {
        s->pushing = true;
        return FL_OK;
    }
    uint32_t room = fl_server_slot_bytes(s, slot);
    if (length > room) {
        char what[8 + FL_SERVER_NAME];
        (void)snprintf(what, sizeof(what), "slot %s", s->config->slots[slot].name);
        return fl_server_lacks(s, FL_ENOSPC, length, room, what);
    }
    take_from_model(s);
    int error = fl_slot_begin(&s->writer, s->config->slots[slot].flash, length);
    if (error) {
        return write_failed(s, error);
    }
    s->pushing = true;
    return FL_OK;
}

static int put(fl_server_t *s, const uint8_t *data, size_t n) {
    uint32_t left = s->push_length - s->push_next;
    take_from_model(s);
    int error = n > left ? FL_EINVAL : fl_slot_write(&s->writer, s->push_next, data, (uint32_t)n);
    if (error) {
        return write_failed(s, error);
    }
    s->push_next += (uint32_t)n;
    if (s->push_next < s->push_length) {
        return FL_OK;
    }
    error = fl_slot_end(&s->writer);
    if (error) {
        return write_failed(s, error);
    }
    if (s->push_named) {
        s->match = is_there(s);
    } else {
        s->match = fl_server_image_in(s, s->push_slot) == s->push_length &&
            fl_image_check(s->config->slots[s->push_slot].bytes, s->push_length) == FL_OK;
    }
    return FL_OK;
}

int fl_server_push_chunk(fl_server_t *s, uint32_t slot, uint32_t off, const uint8_t *data, size_t n, uint32_t length,
    const uint8_t *sha) {
    bool known = sha != NULL;
    bool same = s->pushing && s->push_slot == slot && s->push_named == known;
    if (off == 0) {
        bool again = same && known && s->push_length == length && memcmp(s->push_sha, sha, sizeof(s->push_sha)) == 0;
        if (length < 1) {
            return fl_server_refuse(s, FL_EINVAL, "push: expected len of 1 or more");
        }
        if (!again || (s->match && !is_there(s))) {
            int error = begin(s, slot, length, sha);
            if (error) {
                return error;
            }
        }
    } else if (!same) {
        return fl_server_refuse(s, known ? FL_EINVAL : FL_ENOENT, "push: no push to %s is under way; begin at off 0",
            s->config->slots[slot].name);
    }
    return off == s->push_next && n > 0 && s->push_next < s->push_length ? put(s, data, n) : FL_OK;
}

int fl_server_push(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    const char *to;
    const uint8_t *data, *sha = s->push_sha; // behind off 0 the host tells neither again
    size_t to_len, n, sha_len = 32;
    uint32_t off, length = 0;
    int error = fl_server_need_no_job(s, false);
    error = error ? error : fl_server_get_text(s, body, "to", &to, &to_len);
    error = error ? error : fl_server_get_u32(s, body, "off", &off);
    error = error ? error : fl_server_get_bytes(s, body, "data", &data, &n);
    if (error == FL_OK && off == 0) {
        error = fl_server_get_u32(s, body, "len", &length);
        error = error ? error : fl_server_get_bytes(s, body, "sha", &sha, &sha_len);
    }
    if (error) {
        return error;
    }
    if (sha_len != 32 || (off == 0 && length < 1)) {
        return fl_server_refuse(s, FL_EINVAL, "push: expected len of 1 or more and a sha of 32 bytes");
    }
    int slot = fl_server_slot_named(s, to, to_len);
    if (slot < 0) {
        return fl_server_refuse(s, FL_EINVAL, "push: no slot %.*s; see info", (int)(to_len < 64 ? to_len : 64), to);
    }
    error = fl_server_push_chunk(s, (uint32_t)slot, off, data, n, length, sha);
    if (error) {
        return error;
    }
    fl_cbor_put_str(w, "off");
    fl_cbor_put_int(w, s->push_next);
    if (s->push_next == s->push_length) {
        fl_cbor_put_str(w, "match");
        fl_cbor_put_bool(w, s->match);
        s->pushing = s->match; // without a match the next attempt begins anew
    }
    return FL_OK;
}
