#include <string.h>

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_link.h"

// What the next byte is.
enum {
    IDLE,    // outside a line (an open console frame may wait for its next line)
    MARK_06, // 06 came: 09 makes it the start of a frame
    MARK_04, // 04 came: 14 makes it the next line of a frame
    BODY,    // base64
    SKIP,    // the rest of a line that belongs to no frame
    TAIL,    // the end of a frame's last line
    HEAD,    // the first 9 bytes of a raw message
    RAW,     // the rest of it
};

#define BUF_HEAD 2                   // the console frame's length stands before the message
#define RAW_HEAD (FL_SMP_HEADER + 1) // a raw message is believed once its map has begun

// The value of each base64 character from '+' to 'z'; 0xff: none.
static const uint8_t base64_value['z' - '+' + 1] = {
    62,   0xff, 0xff, 0xff, 63,   52,   53,   54,   55,   56,   57,   58,   59,   60,   61,   0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,    1,    2,    3,    4,    5,    6,    7,    8,    9,
    10,   11,   12,   13,   14,   15,   16,   17,   18,   19,   20,   21,   22,   23,   24,   25,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 26,   27,   28,   29,   30,   31,   32,   33,   34,   35,
    36,   37,   38,   39,   40,   41,   42,   43,   44,   45,   46,   47,   48,   49,   50,   51,
};

static uint32_t base64_of(uint8_t c) {
    return c >= '+' && c <= 'z' ? base64_value[c - '+'] : 0xffu;
}

int fl_deframe_init(fl_deframe_t *st, uint8_t *buf, size_t bytes, unsigned flags) {
    if (bytes < 64 || bytes > UINT16_MAX) {
        return FL_EINVAL;
    }
    memset(st, 0, sizeof *st);
    st->buf = buf;
    st->cap = bytes;
    st->flags = (uint8_t)flags;
    st->msg = buf + BUF_HEAD;
    st->state = IDLE;
    return FL_OK;
}

static bool takes_raw(const fl_deframe_t *st) {
    return (st->flags & FL_DEFRAME_RAW) != 0;
}

static void close_frame(fl_deframe_t *st, uint8_t state) {
    st->open = false;
    st->pos = 0;
    st->want = 0;
    st->held = 0;
    st->padded = false;
    st->state = state;
}

static int give_up(fl_deframe_t *st, uint8_t state, int error) {
    close_frame(st, state);
    st->bad++;
    return error;
}

static int deliver(fl_deframe_t *st, size_t len, fl_framing_t framing, uint8_t state) {
    close_frame(st, state);
    st->frames++;
    st->framing = framing;
    return (int)len;
}

// ---- console lines

static int finish_console(fl_deframe_t *st) {
    const uint8_t *msg = st->buf + BUF_HEAD;
    size_t len = st->want - FL_DEFRAME_EXTRA;
    uint16_t crc = (uint16_t)(msg[len] << 8 | msg[len + 1]);
    size_t length = (size_t)(msg[2] << 8 | msg[3]);
    if (crc != fl_crc16(0, msg, len) || length != len - FL_SMP_HEADER) {
        return give_up(st, TAIL, FL_EBADMSG);
    }
    return deliver(st, len, FL_FRAMING_CONSOLE, TAIL);
}

// The first two bytes tell how long the frame is.
static int learn_length(fl_deframe_t *st) {
    size_t rest = (size_t)(st->buf[0] << 8 | st->buf[1]);
    if (rest < FL_SMP_HEADER + 2) {
        return give_up(st, SKIP, FL_EBADMSG);
    }
    if (rest + 2 > st->cap) {
        return give_up(st, SKIP, FL_ENOMEM);
    }
    st->want = rest + 2;
    return 0;
}

// `held` characters (2, 3 or 4 of a group) become held - 1 bytes.
static int take_group(fl_deframe_t *st) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; i++) {
        bits = bits << 6 | (i < st->held ? base64_of(st->hold[i]) : 0u);
    }
    size_t n = st->held - 1u;
    st->held = 0;
    for (size_t i = 0; i < n; i++) {
        // buf holds at least 64 bytes, and `want` is known after two.
        if (st->want != 0 && st->pos == st->want) {
            return give_up(st, SKIP, FL_EBADMSG);
        }
        st->buf[st->pos++] = (uint8_t)(bits >> (16 - 8 * i));
        if (st->pos == 2) {
            int rc = learn_length(st);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return st->want != 0 && st->pos == st->want ? finish_console(st) : 0;
}

static int take_body(fl_deframe_t *st, uint8_t c) {
    if (c == '\r') {
        return 0;
    }
    if (c == '\n') {
        if (st->held != 0) {
            return give_up(st, IDLE, FL_EBADMSG);
        }
        st->padded = false;
        st->state = IDLE;
        return 0;
    }
    if (c == 0x06) { // the line was cut short and the next frame begins
        return give_up(st, MARK_06, FL_EBADMSG);
    }
    if (c == '=' && (st->held == 2 || st->held == 3) && !st->padded) {
        st->padded = true; // a group of two characters is padded by two, but the first decides
        st->pads_due = (uint8_t)(3 - st->held);
        return take_group(st);
    }
    if (c == '=' && st->padded && st->pads_due > 0) {
        st->pads_due--;
        return 0;
    }
    if (st->padded || base64_of(c) > 63) {
        return give_up(st, SKIP, FL_EBADMSG);
    }
    st->hold[st->held++] = c;
    return st->held == 4 ? take_group(st) : 0;
}

// ---- raw messages

// Could the bytes held be the beginning of a raw message for this side?
static bool plausible(const fl_deframe_t *st) {
    const uint8_t *h = st->hold;
    unsigned reply = (st->flags & FL_DEFRAME_REPLIES) != 0 ? 1u : 0u;
    if ((h[0] & 0xfdu) != (0x08u | reply)) { // version 1, read or write
        return false;
    }
    if (st->held >= 2 && h[1] != 0) {
        return false;
    }
    if (st->held >= 4) {
        size_t length = (size_t)(h[2] << 8 | h[3]);
        if (length == 0 || length + FL_SMP_HEADER + FL_DEFRAME_EXTRA > st->cap) {
            return false;
        }
    }
    if (st->held >= 5 && h[4] != 0) { // groups above 255 are nobody's
        return false;
    }
    return st->held < RAW_HEAD || (h[FL_SMP_HEADER] & 0xe0u) == 0xa0u;
}

static int take_byte(fl_deframe_t *st, uint8_t c);

// The first byte held is noise; the others are looked at again. They are too few to end a message.
static int reject_head(fl_deframe_t *st) {
    uint8_t again[RAW_HEAD];
    size_t n = st->held - 1u;
    memcpy(again, st->hold + 1, n);
    st->held = 0;
    st->state = IDLE;
    st->noise++;
    int first_error = 0;
    for (size_t i = 0; i < n; i++) {
        int rc = take_byte(st, again[i]);
        if (first_error == 0) {
            first_error = rc;
        }
    }
    return first_error;
}

static int take_head(fl_deframe_t *st, uint8_t c) {
    st->hold[st->held++] = c;
    if (!plausible(st)) {
        return reject_head(st);
    }
    if (st->held < RAW_HEAD) {
        return 0;
    }
    if (st->open) { // a console frame that will never be ended
        st->bad++;
        st->open = false;
    }
    memcpy(st->buf + BUF_HEAD, st->hold, RAW_HEAD);
    st->held = 0;
    st->pos = BUF_HEAD + RAW_HEAD;
    st->want = BUF_HEAD + FL_SMP_HEADER + (size_t)(st->buf[BUF_HEAD + 2] << 8 | st->buf[BUF_HEAD + 3]);
    st->state = RAW;
    return st->pos == st->want ? deliver(st, RAW_HEAD, FL_FRAMING_RAW, IDLE) : 0;
}

// A carriage return and padding may stand between the last byte of a frame and its newline.
static bool in_tail(uint8_t c) {
    return c == '\r' || c == '=';
}

// ---- one byte, whatever the state: the slow path, and the whole definition

static int take_byte(fl_deframe_t *st, uint8_t c) {
    switch (st->state) {
    case MARK_06:
        if (c == 0x09) {
            bool interrupted = st->open;
            close_frame(st, BODY);
            st->open = true;
            st->bad += interrupted ? 1u : 0u;
            return interrupted ? FL_EBADMSG : 0;
        }
        st->noise++;
        st->state = IDLE;
        return take_byte(st, c);
    case MARK_04:
        if (c == 0x14) {
            st->state = st->open ? BODY : SKIP; // SKIP: its first line was lost
            return 0;
        }
        st->noise++;
        st->state = IDLE;
        return take_byte(st, c);
    case BODY:
        return take_body(st, c);
    case TAIL:
        if (c == '\n') {
            st->state = IDLE;
            return 0;
        }
        if (in_tail(c)) {
            return 0;
        }
        st->state = IDLE; // the newline was lost
        return take_byte(st, c);
    case SKIP:
        st->noise++;
        if (c == '\n') {
            st->state = IDLE;
        } else if (c == 0x06) {
            st->state = MARK_06;
        }
        return 0;
    case HEAD:
        return take_head(st, c);
    case RAW:
        st->buf[st->pos++] = c;
        return st->pos == st->want ? deliver(st, st->want - BUF_HEAD, FL_FRAMING_RAW, IDLE) : 0;
    default:
        break;
    }
    if (c == 0x06 || c == 0x04) {
        st->state = c == 0x06 ? MARK_06 : MARK_04;
        return 0;
    }
    if (takes_raw(st)) {
        st->state = HEAD;
        return take_head(st, c);
    }
    return 0; // text, which the caller of take_byte() has shown
}

// ---- blocks: the fast paths, each equal to take_byte() in a loop

static size_t body_block(fl_deframe_t *st, const uint8_t *p, size_t n) {
    size_t at = 0;
    while (n - at >= 4 && st->pos + 3 < st->want) {
        uint32_t a = base64_of(p[at]);
        uint32_t b = base64_of(p[at + 1]);
        uint32_t c = base64_of(p[at + 2]);
        uint32_t d = base64_of(p[at + 3]);
        if ((a | b | c | d) > 63) {
            break;
        }
        uint8_t *out = st->buf + st->pos;
        out[0] = (uint8_t)(a << 2 | b >> 4);
        out[1] = (uint8_t)(b << 4 | c >> 2);
        out[2] = (uint8_t)(c << 6 | d);
        st->pos += 3;
        at += 4;
    }
    return at;
}

static size_t raw_block(fl_deframe_t *st, const uint8_t *p, size_t n) {
    size_t take = st->want - 1 - st->pos; // the last byte goes the slow way, which delivers
    take = n < take ? n : take;
    memcpy(st->buf + st->pos, p, take);
    st->pos += take;
    return take;
}

// The marker that came is not one: it was text (a lone 06 or 04 typed by a person).
static bool marker_is_text(const fl_deframe_t *st, uint8_t c) {
    return (st->state == MARK_06 && c != 0x09) || (st->state == MARK_04 && c != 0x14);
}

int fl_deframe_feed(fl_deframe_t *st, const uint8_t *bytes, size_t n, size_t *used) {
    static const uint8_t marker[2] = {0x06, 0x04};
    st->text = bytes;
    st->text_len = 0;
    size_t at = 0;
    while (at < n) {
        if (st->state == BODY && st->held == 0 && !st->padded) {
            at += body_block(st, bytes + at, n - at);
        } else if (st->state == RAW) {
            at += raw_block(st, bytes + at, n - at);
        } else if (!takes_raw(st) && st->state == IDLE) {
            size_t from = at;
            while (at < n && bytes[at] != 0x06 && bytes[at] != 0x04) {
                at++;
            }
            if (at > from) {
                st->text = bytes + from;
                st->text_len = at - from;
                break;
            }
        } else if (!takes_raw(st) && marker_is_text(st, bytes[at])) {
            st->text = marker + (st->state == MARK_04 ? 1 : 0);
            st->text_len = 1;
            st->state = IDLE;
            break;
        } else if (!takes_raw(st) && st->state == TAIL && bytes[at] != '\n' && !in_tail(bytes[at])) {
            st->state = IDLE; // the newline was lost, text follows
            continue;
        }
        if (at < n) {
            int rc = take_byte(st, bytes[at++]);
            if (rc != 0) {
                *used = at;
                return rc;
            }
        }
    }
    *used = at;
    return 0;
}

size_t fl_deframe_gap(fl_deframe_t *st) {
    size_t dropped = 0;
    if (st->state == RAW) {
        dropped = st->pos - BUF_HEAD;
        (void)give_up(st, IDLE, FL_EBADMSG);
    } else if (st->state == HEAD) {
        dropped = st->held;
        st->held = 0;
        st->state = IDLE;
        st->noise += (uint32_t)dropped;
    } else if (takes_raw(st) && (st->state == SKIP || st->state == TAIL)) {
        st->state = IDLE; // the newline was lost; a raw message may come next
    }
    return dropped;
}
