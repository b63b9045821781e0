// The store as the server uses it: errors with a reason, and a mount after a failure of the flash.
#include <string.h>

#include "server/server.h"

int fl_server_store_refuse(fl_server_t *s, int error) {
    switch (error) {
        case FL_OK: return FL_OK;
        case FL_ENOSPC:
            (void)fl_server_refuse(s, error, "store: needs %u bytes of flash, %u available", (unsigned)s->store.needed,
                (unsigned)s->store.available);
            s->lack.need = s->store.needed;
            s->lack.have = s->store.available;
            return error;
        case FL_ENOENT: return fl_server_refuse(s, error, "store: no such record");
        // The host is told what the server in Python tells: all of these are an invalid argument there.
        case FL_ENOTSUP:
            return fl_server_refuse(s, FL_EINVAL, "store: of another version or geometry; formatting replaces it");
        case FL_EBADMSG: return fl_server_refuse(s, FL_EINVAL, "store: record damaged");
        case FL_EINVAL: return fl_server_refuse(s, error, "store: type, length or geometry out of range");
        default: return fl_server_refuse(s, FL_EIO, "store: the flash failed");
    }
}

static int mount(fl_server_t *s) {
    const uint8_t(*uids)[FL_STORE_UID_BYTES] =
        s->mounted_count > 0 ? (const uint8_t(*)[FL_STORE_UID_BYTES])s->mounted : NULL;
    return fl_store_mount(&s->store, s->config->store, uids, s->mounted_count);
}

int fl_server_mount(fl_server_t *s, const uint8_t (*uids)[FL_STORE_UID_BYTES], uint32_t count) {
    s->mounted_count = count;
    for (uint32_t i = 0; i < count; ++i) {
        memcpy(s->mounted[i], uids[i], FL_STORE_UID_BYTES);
    }
    return fl_server_store_refuse(s, mount(s));
}

static int ready(fl_server_t *s) {
    return s->store.failed || s->store.flash == NULL ? fl_server_store_refuse(s, mount(s)) : FL_OK;
}

int fl_server_find(fl_server_t *s, uint16_t type, const uint8_t uid[FL_STORE_UID_BYTES], unsigned nth,
    fl_store_rec_t *rec) {
    int error = ready(s);
    return error ? error : fl_store_find(&s->store, type, uid, nth, rec);
}

int fl_server_read(fl_server_t *s, const fl_store_rec_t *rec, uint32_t off, void *buf, uint32_t n) {
    int error = ready(s);
    return error ? error : fl_server_store_refuse(s, fl_store_read(&s->store, rec, off, buf, n));
}

int fl_server_append(fl_server_t *s, uint16_t type, const uint8_t uid[FL_STORE_UID_BYTES],
    const fl_store_piece_t *pieces, size_t count) {
    int error = ready(s);
    return error ? error : fl_server_store_refuse(s, fl_store_append(&s->store, type, uid, pieces, count));
}

int fl_server_copy(fl_server_t *s, const fl_store_rec_t *rec) {
    int error = ready(s);
    return error ? error : fl_server_store_refuse(s, fl_store_copy(&s->store, rec));
}
