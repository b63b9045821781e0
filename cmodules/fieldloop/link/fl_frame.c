#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_link.h"

// A line: two bytes of marker, base64, newline. 93 bytes of the frame make 124 characters.
#define LINE_BYTES ((FL_LINK_LINE - 3) / 4 * 3)

void fl_framer_init(fl_framer_t *f, const uint8_t *msg, size_t len) {
    f->msg = msg;
    f->len = len;
    f->pos = 0;
    f->crc = fl_crc16(0, msg, len);
}

// The frame is never put together: length, message and CRC are read where they are.
static uint32_t frame_byte(const fl_framer_t *f, size_t i) {
    if (i >= 2 && i < f->len + 2) {
        return f->msg[i - 2];
    }
    if (i >= f->len + 4) {
        return 0; // padding of the last group
    }
    uint32_t pair = i < 2 ? (uint32_t)f->len + 2 : f->crc;
    bool high = i == 0 || i == f->len + 2;
    return (high ? pair >> 8 : pair) & 0xffu;
}

size_t fl_framer_next(fl_framer_t *f, uint8_t *out, size_t cap) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t total = f->len + FL_DEFRAME_EXTRA;
    size_t at = 0;
    while (f->pos < total) {
        size_t n = total - f->pos < LINE_BYTES ? total - f->pos : LINE_BYTES;
        if (cap - at < (n + 2) / 3 * 4 + 3) {
            break;
        }
        out[at++] = f->pos == 0 ? 0x06 : 0x04;
        out[at++] = f->pos == 0 ? 0x09 : 0x14;
        for (size_t i = 0; i < n; i += 3) {
            size_t p = f->pos + i;
            uint32_t bits = frame_byte(f, p) << 16 | frame_byte(f, p + 1) << 8 | frame_byte(f, p + 2);
            out[at] = (uint8_t)alphabet[bits >> 18];
            out[at + 1] = (uint8_t)alphabet[bits >> 12 & 63u];
            out[at + 2] = i + 1 < n ? (uint8_t)alphabet[bits >> 6 & 63u] : '=';
            out[at + 3] = i + 2 < n ? (uint8_t)alphabet[bits & 63u] : '=';
            at += 4;
        }
        out[at++] = '\n';
        f->pos += n;
    }
    return at;
}

size_t fl_framer_bytes(size_t len) {
    size_t total = len + FL_DEFRAME_EXTRA;
    size_t lines = (total + LINE_BYTES - 1) / LINE_BYTES;
    return (total + 2) / 3 * 4 + 3 * lines;
}
