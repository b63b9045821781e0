#include <string.h>

#include "fieldloop/fl_link.h"

enum { RUNNING = 0, KEPT = 1, TOO_LARGE = 2 };

// A bijection that spreads every bit (the finaliser of MurmurHash3): ids of one boot never repeat within
// 2^32 openings, and those of two boots are unlike.
static uint32_t spread(uint32_t x) {
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    x ^= x >> 16;
    return x;
}

void fl_session_init(fl_session_t *st, uint32_t boot, uint8_t *reply, size_t cap) {
    memset(st, 0, sizeof *st);
    st->boot = boot;
    st->reply = reply;
    st->cap = cap;
}

uint32_t fl_session_open(fl_session_t *st, uint32_t nonce) {
    if (st->id != 0 && st->nonce == nonce && st->last == 0) {
        return st->id;
    }
    do {
        st->opened++;
        st->id = spread(spread(st->boot) + st->opened);
    } while (st->id == 0);
    st->nonce = nonce;
    st->last = 0;
    st->len = 0;
    st->state = RUNNING;
    return st->id;
}

int fl_session_begin(fl_session_t *st, uint32_t id, uint32_t n, uint8_t cmd) {
    if (st->id == 0) {
        return FL_ENOENT;
    }
    if (id != st->id) {
        return FL_EBUSY;
    }
    if (n == st->last + 1) {
        st->last = n;
        st->cmd = cmd;
        st->len = 0;
        st->state = RUNNING;
        return FL_SESSION_RUN;
    }
    if (n == 0 || n != st->last || cmd != st->cmd) {
        return FL_EINVAL;
    }
    if (st->state == KEPT) {
        return FL_SESSION_REPEAT;
    }
    return st->state == TOO_LARGE ? FL_ENOMEM : FL_EIO;
}

void fl_session_unused(fl_session_t *st) {
    st->last--;
}

int fl_session_end(fl_session_t *st, const uint8_t *reply, size_t len) {
    if (len > st->cap) {
        st->state = TOO_LARGE;
        return FL_ENOMEM;
    }
    if (len > 0) {
        memcpy(st->reply, reply, len);
    }
    st->len = len;
    st->state = KEPT;
    return FL_OK;
}

const char *fl_session_text(int error) {
    switch (error) {
        case FL_ENOENT: return "no session since this boot: open one";
        case FL_EBUSY: return "a newer session is open; open another to take over";
        case FL_EINVAL: return "call number out of order";
        case FL_EIO: return "the call was broken off, its effect is unknown";
        default: return "the kept reply is too large";
    }
}
