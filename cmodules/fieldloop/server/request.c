// Entries of a request's map.
#include "server/server.h"

static int check(fl_server_t *s, int error, const char *key, const char *expected) {
    if (error == FL_OK) {
        return FL_OK;
    }
    return error == FL_ENOENT ? fl_server_refuse(s, FL_EINVAL, "the request lacks `%s`", key)
                              : fl_server_refuse(s, FL_EINVAL, "%s: expected %s", key, expected);
}

int fl_server_get_u32(fl_server_t *s, const fl_cbor_t *body, const char *key, uint32_t *v) {
    return check(s, fl_cbor_get_u32(body, key, v), key, "an unsigned 32-bit number");
}

int fl_server_get_bytes(fl_server_t *s, const fl_cbor_t *body, const char *key, const uint8_t **p, size_t *n) {
    return check(s, fl_cbor_get_bytes(body, key, p, n), key, "a byte string");
}

int fl_server_get_text(fl_server_t *s, const fl_cbor_t *body, const char *key, const char **p, size_t *n) {
    return check(s, fl_cbor_get_text(body, key, p, n), key, "text");
}
