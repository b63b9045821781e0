#include <string.h>

#include "fieldloop/fl_cbor.h"

void fl_cbor_w_init(fl_cbor_w_t *w, uint8_t *buf, size_t cap) {
    w->buf = buf;
    w->cap = cap;
    w->len = 0;
    w->overflow = false;
}

static uint8_t *take(fl_cbor_w_t *w, size_t n) {
    if (w->overflow || w->cap - w->len < n) {
        w->overflow = true;
        return NULL;
    }
    uint8_t *at = w->buf + w->len;
    w->len += n;
    return at;
}

static void put_byte(fl_cbor_w_t *w, unsigned byte) {
    uint8_t *at = take(w, 1);
    if (at != NULL) {
        *at = (uint8_t)byte;
    }
}

// The head of an item in its shortest form.
static void put_head(fl_cbor_w_t *w, unsigned major, uint64_t value) {
    if (value < 24) {
        put_byte(w, major << 5 | (unsigned)value);
        return;
    }
    unsigned log2n = value <= 0xffu ? 0u : value <= 0xffffu ? 1u : value <= 0xffffffffu ? 2u : 3u;
    size_t n = (size_t)1 << log2n;
    uint8_t *at = take(w, 1 + n);
    if (at == NULL) {
        return;
    }
    at[0] = (uint8_t)(major << 5 | (24 + log2n));
    for (size_t i = 0; i < n; i++) {
        at[1 + i] = (uint8_t)(value >> (8 * (n - 1 - i)));
    }
}

void fl_cbor_put_int(fl_cbor_w_t *w, int64_t v) {
    if (v >= 0) {
        put_head(w, 0, (uint64_t)v);
    } else {
        put_head(w, 1, (uint64_t)(-1 - v));
    }
}

void fl_cbor_put_f32(fl_cbor_w_t *w, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint8_t *at = take(w, 5);
    if (at != NULL) {
        at[0] = 0xfa;
        for (size_t i = 0; i < 4; i++) {
            at[1 + i] = (uint8_t)(bits >> (24 - 8 * i));
        }
    }
}

void fl_cbor_put_bool(fl_cbor_w_t *w, bool v) {
    put_byte(w, v ? 0xf5 : 0xf4);
}

void fl_cbor_put_null(fl_cbor_w_t *w) {
    put_byte(w, 0xf6);
}

static uint8_t *reserve(fl_cbor_w_t *w, unsigned major, size_t n) {
    put_head(w, major, n);
    return take(w, n);
}

uint8_t *fl_cbor_reserve_bytes(fl_cbor_w_t *w, size_t n) {
    return reserve(w, 2, n);
}

void fl_cbor_put_bytes(fl_cbor_w_t *w, const void *p, size_t n) {
    uint8_t *at = reserve(w, 2, n);
    if (at != NULL && n > 0) {
        memcpy(at, p, n);
    }
}

void fl_cbor_put_text(fl_cbor_w_t *w, const char *p, size_t n) {
    uint8_t *at = reserve(w, 3, n);
    if (at != NULL && n > 0) {
        memcpy(at, p, n);
    }
}

void fl_cbor_put_str(fl_cbor_w_t *w, const char *s) {
    fl_cbor_put_text(w, s, strlen(s));
}

static void put_container(fl_cbor_w_t *w, unsigned major, size_t n) {
    if (n == FL_CBOR_INDEFINITE) {
        put_byte(w, major << 5 | 31u);
    } else {
        put_head(w, major, n);
    }
}

void fl_cbor_put_array(fl_cbor_w_t *w, size_t items) {
    put_container(w, 4, items);
}

void fl_cbor_put_map(fl_cbor_w_t *w, size_t pairs) {
    put_container(w, 5, pairs);
}

void fl_cbor_put_break(fl_cbor_w_t *w) {
    put_byte(w, 0xff);
}
