// MCUmgr's file group: any SMP client pushes a model, and fetches what is there (device/fieldloop/files.py).
//
// /model0, /model1 (the slots by their names), /image (the active model), /state (the newest commit). Requests carry
// neither session nor check: an upload is held together by its offsets, and by the image's own CRC. Clients of this group
// may be strict: an error is a number, at most with `rsn`, a text.
#include <string.h>

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_sha256.h"
#include "server/server.h"

enum {
    CMD_FILE = 0, CMD_STATUS = 1, CMD_HASH = 2, CMD_TYPES = 3, CMD_CLOSE = 4,
    OVERHEAD = 128, // of a reply that carries data, the frame's own bytes included: as the server in Python has it
    PIECE = 64,     // bytes of stack to hash a record through
};

// The group's own errors. 0: none.
enum {
    INVALID_NAME = 2, NOT_FOUND = 3, READ_FAILED = 7, WRITE_FAILED = 10, OFFSET_NOT_VALID = 11, OFFSET_TOO_LARGE = 12,
    NO_SUCH_HASH = 13, READ_ONLY = 15,
};

// How a command ended. All 0: well.
typedef struct {
    int file; // an error of the group
    int smp;  // else one of SMP's, and s->text says why
} end_t;

static const end_t DONE = {0, 0};

static end_t file_error(int rc) {
    return (end_t){.file = rc};
}

// Of a call that refused with an error of the core.
static end_t core_error(int error) {
    switch (error) {
        case FL_EBUSY: return (end_t){.smp = FL_SMP_EBUSY};
        case FL_ENOSPC: case FL_ENOMEM: return (end_t){.smp = FL_SMP_ENOMEM};
        default: return (end_t){.smp = FL_SMP_EINVAL};
    }
}

// ---- what there is

typedef struct {
    uint32_t bytes;
    const uint8_t *at;     // in memory; NULL: a record of the store
    fl_store_rec_t record;
} place_t;

static bool is(const char *name, size_t len, const char *other) {
    return strlen(other) == len && memcmp(name, other, len) == 0;
}

static int slot_of(fl_server_t *s, const char *name, size_t len) {
    return len > 1 && name[0] == '/' ? fl_server_slot_named(s, name + 1, len - 1) : FL_ENOENT;
}

static end_t get_name(fl_server_t *s, const fl_cbor_t *body, const char **name, size_t *len) {
    int error = fl_server_get_text(s, body, "name", name, len);
    return error ? core_error(error) : DONE;
}

static end_t find(fl_server_t *s, const fl_cbor_t *body, place_t *place) {
    const char *name;
    size_t len;
    end_t end = get_name(s, body, &name, &len);
    if (end.smp) {
        return end;
    }
    memset(place, 0, sizeof(*place));
    if (is(name, len, "/state")) {
        int error = s->has_model ? fl_server_find(s, FL_SERVER_STATE, fl_server_uid(s), 0, &place->record) : FL_ENOENT;
        place->bytes = error ? 0 : place->record.len;
        return file_error(error && error != FL_ENOENT ? READ_FAILED : place->bytes == 0 ? NOT_FOUND : 0);
    }
    int slot = (int)s->active;
    if (is(name, len, "/image")) {
        place->bytes = s->has_model ? s->image_bytes : 0;
    } else {
        slot = slot_of(s, name, len);
        if (slot < 0) {
            return file_error(INVALID_NAME);
        }
        bool under_way = s->pushing && (uint32_t)slot == s->push_slot && s->push_next < s->push_length;
        place->bytes = under_way ? 0 : fl_server_image_in(s, (uint32_t)slot);
    }
    place->at = s->config->slots[slot].bytes;
    return file_error(place->bytes == 0 ? NOT_FOUND : 0);
}

static int read_at(fl_server_t *s, const place_t *place, uint32_t off, void *to, uint32_t n) {
    if (place->at != NULL) {
        memcpy(to, place->at + off, n);
        return FL_OK;
    }
    return fl_server_read(s, &place->record, off, to, n);
}

// A number that may be missing.
static end_t get_number(fl_server_t *s, const fl_cbor_t *body, const char *key, uint32_t *v) {
    int error = fl_cbor_get_u32(body, key, v);
    return error && error != FL_ENOENT ? core_error(fl_server_get_u32(s, body, key, v)) : DONE;
}

// ---- commands

static end_t download(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    uint32_t off;
    place_t place;
    int error = fl_server_get_u32(s, body, "off", &off);
    if (error) {
        return core_error(error);
    }
    end_t end = find(s, body, &place);
    if (end.file || end.smp) {
        return end;
    }
    if (off > place.bytes) {
        return file_error(OFFSET_TOO_LARGE);
    }
    uint32_t n = (uint32_t)w->cap + FL_DEFRAME_EXTRA - OVERHEAD; // cap is 252 or more
    n = place.bytes - off < n ? place.bytes - off : n;
    fl_cbor_put_str(w, "off");
    fl_cbor_put_int(w, off);
    fl_cbor_put_str(w, "data");
    uint8_t *data = fl_cbor_reserve_bytes(w, n);
    if (data != NULL && read_at(s, &place, off, data, n) != FL_OK) {
        return file_error(READ_FAILED);
    }
    if (off == 0) {
        fl_cbor_put_str(w, "len");
        fl_cbor_put_int(w, place.bytes);
    }
    return DONE;
}

static end_t upload(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    const char *name;
    const uint8_t *data;
    size_t len, n;
    uint32_t off, length = 0;
    end_t end = get_name(s, body, &name, &len);
    int error = end.smp ? FL_EINVAL : fl_server_get_u32(s, body, "off", &off);
    error = error ? error : fl_server_get_bytes(s, body, "data", &data, &n);
    if (error) {
        return core_error(error);
    }
    if (is(name, len, "/state") || is(name, len, "/image")) {
        return file_error(READ_ONLY);
    }
    int slot = slot_of(s, name, len);
    if (slot < 0) {
        return file_error(INVALID_NAME);
    }
    error = fl_server_need_no_job(s, false);
    if (error == FL_OK && off == 0) {
        error = fl_server_get_u32(s, body, "len", &length);
    }
    error = error ? error : fl_server_push_chunk(s, (uint32_t)slot, off, data, n, length, NULL);
    if (error == FL_ENOENT || error == FL_EIO) {
        return file_error(error == FL_EIO ? WRITE_FAILED : OFFSET_NOT_VALID);
    }
    if (error) {
        return core_error(error);
    }
    if (s->push_next == s->push_length && !s->match) {
        s->pushing = false; // the next attempt begins anew
        return core_error(fl_server_refuse(s, FL_EINVAL, "%.*s: what came is no whole .flm image; upload it again",
            (int)(len < FL_SERVER_NAME ? len : FL_SERVER_NAME), name));
    }
    fl_cbor_put_str(w, "off");
    fl_cbor_put_int(w, s->push_next);
    return DONE;
}

static end_t status(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    place_t place;
    end_t end = find(s, body, &place);
    if (end.file || end.smp) {
        return end;
    }
    fl_cbor_put_str(w, "len");
    fl_cbor_put_int(w, place.bytes);
    return DONE;
}

// sha: NULL for a CRC-32.
static int sum(fl_server_t *s, const place_t *place, uint32_t off, uint32_t n, fl_sha256_t *sha, uint32_t *crc) {
    uint8_t piece[PIECE];
    while (n > 0) {
        uint32_t part = n < PIECE ? n : PIECE;
        int error = read_at(s, place, off, piece, part);
        if (error) {
            return error;
        }
        if (sha != NULL) {
            fl_sha256_update(sha, piece, part);
        } else {
            *crc = fl_crc32(*crc, piece, part);
        }
        off += part;
        n -= part;
    }
    return FL_OK;
}

static end_t checksum(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w) {
    const char *kind = "sha256";
    size_t kind_len = strlen(kind);
    int error = fl_cbor_get_text(body, "type", &kind, &kind_len);
    bool is_sha = is(kind, kind_len, "sha256");
    if ((error && error != FL_ENOENT) || (!is_sha && !is(kind, kind_len, "crc32"))) {
        return file_error(NO_SUCH_HASH);
    }
    uint32_t off = 0, most = UINT32_MAX;
    place_t place;
    end_t end = get_number(s, body, "off", &off);
    end = end.smp ? end : get_number(s, body, "len", &most);
    end = end.smp ? end : find(s, body, &place);
    if (end.file || end.smp) {
        return end;
    }
    if (off > place.bytes) {
        return file_error(OFFSET_TOO_LARGE);
    }
    uint32_t n = place.bytes - off < most ? place.bytes - off : most;
    fl_sha256_t sha;
    fl_sha256_init(&sha);
    uint32_t crc = 0;
    if (sum(s, &place, off, n, is_sha ? &sha : NULL, &crc) != FL_OK) {
        return file_error(READ_FAILED);
    }
    fl_cbor_put_str(w, "type");
    fl_cbor_put_text(w, kind, kind_len);
    fl_cbor_put_str(w, "len");
    fl_cbor_put_int(w, n);
    fl_cbor_put_str(w, "output");
    if (is_sha) {
        uint8_t digest[FL_SHA256_BYTES];
        fl_sha256_final(&sha, digest);
        fl_cbor_put_bytes(w, digest, sizeof(digest));
    } else {
        fl_cbor_put_int(w, crc);
    }
    if (off > 0) {
        fl_cbor_put_str(w, "off");
        fl_cbor_put_int(w, off);
    }
    return DONE;
}

static void put_type(fl_cbor_w_t *w, const char *name, int format, int size) {
    fl_cbor_put_str(w, name);
    fl_cbor_put_map(w, 2);
    fl_cbor_put_str(w, "format"); // 1: a byte string, 0: a number
    fl_cbor_put_int(w, format);
    fl_cbor_put_str(w, "size");
    fl_cbor_put_int(w, size);
}

static end_t types(fl_cbor_w_t *w) {
    fl_cbor_put_str(w, "types");
    fl_cbor_put_map(w, 2);
    put_type(w, "sha256", 1, FL_SHA256_BYTES);
    put_type(w, "crc32", 0, 4);
    return DONE;
}

// Well-formed to its end.
static bool is_map(fl_cbor_t body) {
    fl_cbor_t head = body;
    fl_cbor_item_t item;
    return fl_cbor_next(&head, &item) == FL_OK && item.type == FL_CBOR_MAP && fl_cbor_skip(&body) == FL_OK;
}

static end_t run(fl_server_t *s, const fl_smp_t *head, const fl_cbor_t *body, fl_cbor_w_t *w) {
    bool write = head->op == FL_SMP_WRITE;
    if (write ? head->cmd != CMD_FILE && head->cmd != CMD_CLOSE : head->cmd > CMD_TYPES) {
        return (end_t){.smp = FL_SMP_ENOTSUP};
    }
    if (!is_map(*body)) {
        return core_error(fl_server_refuse(s, FL_EINVAL, "the request's body is not a CBOR map"));
    }
    switch (head->cmd) {
        case CMD_FILE: return write ? upload(s, body, w) : download(s, body, w);
        case CMD_STATUS: return status(s, body, w);
        case CMD_HASH: return checksum(s, body, w);
        case CMD_TYPES: return types(w);
        default: return DONE; // close: nothing is kept open
    }
}

// ---- the reply

int fl_server_answer_files(fl_server_t *s, const uint8_t *msg, size_t len, uint8_t *reply, size_t cap) {
    fl_smp_t request;
    if (fl_smp_unpack(msg, len, &request) != FL_OK || (request.op & 1u) != 0) {
        return 0;
    }
    fl_smp_t head = fl_smp_reply_to(&request);
    fl_cbor_t body = fl_cbor_over(msg + FL_SMP_HEADER, len - FL_SMP_HEADER);
    fl_cbor_w_t w;
    fl_smp_begin(&w, reply, cap, &head);
    s->text[0] = '\0';
    end_t end = run(s, &request, &body, &w);
    int bytes = end.file || end.smp ? 0 : fl_smp_end_plain(&w);
    if (bytes > 0) {
        return bytes;
    }
    fl_smp_begin(&w, reply, cap, &head);
    if (end.file) {
        fl_cbor_put_str(&w, "err");
        fl_cbor_put_map(&w, 2);
        fl_cbor_put_str(&w, "group");
        fl_cbor_put_int(&w, FL_SERVER_GROUP_FILES);
        fl_cbor_put_str(&w, "rc");
        fl_cbor_put_int(&w, end.file);
    } else {
        fl_cbor_put_str(&w, "rc");
        fl_cbor_put_int(&w, end.smp ? end.smp : FL_SMP_EMSGSIZE);
        if (end.smp && s->text[0] != '\0') {
            fl_cbor_put_str(&w, "rsn");
            fl_cbor_put_str(&w, s->text);
        }
    }
    bytes = fl_smp_end_plain(&w);
    return bytes > 0 ? bytes : 0;
}
