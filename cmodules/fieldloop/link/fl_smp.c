#include <string.h>

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_link.h"

int fl_smp_unpack(const uint8_t *msg, size_t len, fl_smp_t *h) {
    if (len < FL_SMP_HEADER) {
        return FL_EBADMSG;
    }
    h->op = msg[0] & 7u;
    h->version = (msg[0] >> 3) & 3u;
    h->length = (uint16_t)(msg[2] << 8 | msg[3]);
    h->group = (uint16_t)(msg[4] << 8 | msg[5]);
    h->seq = msg[6];
    h->cmd = msg[7];
    if (h->length != len - FL_SMP_HEADER || h->op > FL_SMP_WRITE_REPLY) {
        return FL_EBADMSG;
    }
    return h->version == 1 ? FL_OK : FL_ENOTSUP;
}

void fl_smp_pack(uint8_t msg[FL_SMP_HEADER], const fl_smp_t *h) {
    msg[0] = (uint8_t)(h->version << 3 | h->op);
    msg[1] = 0;
    msg[2] = (uint8_t)(h->length >> 8);
    msg[3] = (uint8_t)h->length;
    msg[4] = (uint8_t)(h->group >> 8);
    msg[5] = (uint8_t)h->group;
    msg[6] = h->seq;
    msg[7] = h->cmd;
}

// The four bytes of the header that the check covers; sequence number and length may differ between two
// transmissions of one call.
static uint32_t header_crc(const uint8_t *msg) {
    uint8_t head[4] = {msg[0] & 7u, msg[4], msg[5], msg[7]};
    return fl_crc32(0, head, sizeof head);
}

int fl_smp_check(const uint8_t *msg, size_t len, size_t *entries) {
    if (len <= FL_SMP_HEADER) {
        return FL_EBADMSG;
    }
    fl_cbor_t r = fl_cbor_over(msg + FL_SMP_HEADER, len - FL_SMP_HEADER);
    fl_cbor_item_t head;
    int rc = fl_cbor_next(&r, &head);
    if (rc != FL_OK) {
        return rc;
    }
    if (head.type != FL_CBOR_MAP) {
        return FL_EBADMSG;
    }
    const uint8_t *first = r.at;
    const uint8_t *last = NULL; // where the last entry begins
    fl_cbor_item_t last_key = {.type = FL_CBOR_NULL};
    size_t n = 0;
    for (; head.len == FL_CBOR_INDEFINITE || n < head.len; n++) {
        fl_cbor_t peek = r;
        fl_cbor_item_t key;
        rc = fl_cbor_next(&peek, &key);
        if (rc == FL_OK && key.type == FL_CBOR_BREAK) {
            if (head.len != FL_CBOR_INDEFINITE) {
                return FL_EBADMSG;
            }
            r = peek;
            break;
        }
        last = r.at;
        last_key = key;
        if (rc == FL_OK) {
            rc = fl_cbor_skip(&r);
        }
        if (rc == FL_OK) {
            rc = fl_cbor_skip(&r);
        }
        if (rc != FL_OK) {
            return rc;
        }
    }
    if (r.at != r.end) {
        return FL_EBADMSG;
    }
    if (entries != NULL) {
        *entries = n;
    }
    if (last_key.type != FL_CBOR_TEXT || last_key.len != 3 || memcmp(last_key.ptr, "crc", 3) != 0) {
        return FL_ENOENT;
    }
    if (entries != NULL) {
        *entries = n - 1;
    }
    fl_cbor_t value = fl_cbor_over(last_key.ptr + 3, (size_t)(r.end - (last_key.ptr + 3)));
    fl_cbor_item_t crc;
    rc = fl_cbor_next(&value, &crc);
    if (rc != FL_OK) {
        return rc;
    }
    uint32_t right = fl_crc32(header_crc(msg), first, (size_t)(last - first));
    return crc.type == FL_CBOR_INT && crc.i == (int64_t)right ? FL_OK : FL_EBADMSG;
}

// One byte 0xbf: the number of pairs need not be known in advance.
void fl_smp_begin(fl_cbor_w_t *w, uint8_t *buf, size_t cap, const fl_smp_t *h) {
    fl_cbor_w_init(w, buf, cap);
    if (cap < FL_SMP_HEADER) {
        w->overflow = true;
        return;
    }
    fl_smp_pack(buf, h);
    w->len = FL_SMP_HEADER;
    fl_cbor_put_map(w, FL_CBOR_INDEFINITE);
}

int fl_smp_end(fl_cbor_w_t *w) {
    if (w->overflow) {
        return FL_ENOMEM;
    }
    const uint8_t *first = w->buf + FL_SMP_HEADER + 1;
    uint32_t crc = fl_crc32(header_crc(w->buf), first, (size_t)(w->buf + w->len - first));
    fl_cbor_put_str(w, "crc");
    fl_cbor_put_int(w, (int64_t)crc);
    return fl_smp_end_plain(w);
}

int fl_smp_end_plain(fl_cbor_w_t *w) {
    fl_cbor_put_break(w);
    size_t length = w->len - FL_SMP_HEADER;
    if (w->overflow || length > UINT16_MAX) {
        return FL_ENOMEM;
    }
    w->buf[2] = (uint8_t)(length >> 8);
    w->buf[3] = (uint8_t)length;
    return (int)w->len;
}

int fl_smp_damaged(uint8_t *buf, size_t cap, uint16_t group) {
    fl_smp_t h = {.op = FL_SMP_WRITE_REPLY, .version = 1, .group = group, .cmd = FL_LINK_DAMAGED};
    fl_cbor_w_t w;
    fl_smp_begin(&w, buf, cap, &h);
    fl_cbor_put_str(&w, "rc");
    fl_cbor_put_int(&w, FL_SMP_ECORRUPT);
    return fl_smp_end(&w);
}
