// Fuzzes the deframer, the CBOR reader, the message check and the session under ASan and UBSan.
//
//     fuzz_link ROUNDS SEED    prints "ok ROUNDS" or aborts
//
// Every input lives in a heap block of exactly its size, so that one byte too far is caught. What must
// hold beside memory safety is checked with MUST().
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_cbor.h"
#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_link.h"

#define MUST(x)                                                     \
    do {                                                            \
        if (!(x)) {                                                 \
            fprintf(stderr, "%d: %s does not hold\n", __LINE__, #x); \
            abort();                                                \
        }                                                           \
    } while (0)

static uint64_t state;

static uint32_t rnd(void) { // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

static uint32_t below(uint32_t n) {
    return rnd() % n;
}

static uint8_t *exact(const uint8_t *bytes, size_t n) {
    uint8_t *block = malloc(n > 0 ? n : 1);
    MUST(block != NULL);
    if (n > 0) {
        memcpy(block, bytes, n);
    }
    return block;
}

static void put_random(fl_cbor_w_t *w, int depth) {
    uint8_t junk[300];
    for (size_t i = 0; i < sizeof junk; i++) {
        junk[i] = (uint8_t)rnd();
    }
    switch (below(depth > 2 ? 6 : 10)) {
    case 0:
        fl_cbor_put_int(w, (int64_t)((uint64_t)rnd() << 32 | rnd()) >> below(64));
        break;
    case 1:
        fl_cbor_put_f32(w, (float)(int32_t)rnd() / 7.0f);
        break;
    case 2:
        fl_cbor_put_bool(w, below(2) != 0);
        break;
    case 3:
        fl_cbor_put_null(w);
        break;
    case 4:
        fl_cbor_put_bytes(w, junk, below(sizeof junk));
        break;
    case 5:
        fl_cbor_put_text(w, (const char *)junk, below(30));
        break;
    default: {
        size_t n = below(5);
        bool map = below(2) != 0;
        bool indefinite = below(2) != 0;
        (map ? fl_cbor_put_map : fl_cbor_put_array)(w, indefinite ? FL_CBOR_INDEFINITE : n);
        for (size_t i = 0; i < (map ? 2 * n : n); i++) {
            put_random(w, depth + 1);
        }
        if (indefinite) {
            fl_cbor_put_break(w);
        }
    }
    }
}

// A whole message, sometimes with a wrong or no check.
static size_t random_message(uint8_t *buf, size_t cap) {
    fl_smp_t h = {.op = (uint8_t)(2 * below(2)), .version = 1, .group = below(2) ? 70 : 0, .seq = (uint8_t)rnd(), .cmd = (uint8_t)below(20)};
    fl_cbor_w_t w;
    fl_smp_begin(&w, buf, cap, &h);
    static const char *const keys[] = {"s", "n", "x", "off", "crc", "data"};
    for (uint32_t i = below(6); i > 0; i--) {
        fl_cbor_put_str(&w, keys[below(6)]);
        put_random(&w, 0);
    }
    int len = fl_smp_end(&w);
    return len > 0 ? (size_t)len : 0;
}

static size_t mutate(uint8_t *b, size_t n) {
    static const uint8_t liked[] = {0x06, 0x09, 0x04, 0x14, 0x0a, 0x08, 0x3d, 0xff, 0xbf, 0x9f, 0x7f, 0x5b, 0xbb, 0x9b, 0};
    for (uint32_t i = below(4); i > 0 && n > 1; i--) {
        size_t at = below((uint32_t)n);
        switch (below(4)) {
        case 0:
            b[at] = (uint8_t)rnd();
            break;
        case 1:
            b[at] = liked[below(sizeof liked)];
            break;
        case 2:
            memmove(b + at, b + at + 1, n - at - 1);
            n--;
            break;
        default:
            n = at + 1;
        }
    }
    return n;
}

static void read_all(fl_cbor_t r) {
    fl_cbor_item_t item;
    while (r.at < r.end) {
        const uint8_t *before = r.at;
        if (fl_cbor_next(&r, &item) != FL_OK) {
            MUST(r.at == before);
            return;
        }
        MUST(r.at > before && r.at <= r.end);
        if (item.type == FL_CBOR_BYTES || item.type == FL_CBOR_TEXT) {
            MUST(item.ptr + item.len == r.at);
        }
    }
}

static void fuzz_cbor(const uint8_t *body, size_t n) {
    uint8_t *b = exact(body, n);
    fl_cbor_t r = fl_cbor_over(b, n);
    read_all(r);
    fl_cbor_t skipped = r;
    if (fl_cbor_skip(&skipped) == FL_OK) {
        MUST(skipped.at > b && skipped.at <= b + n);
    } else {
        MUST(skipped.at == b);
    }
    int64_t i;
    uint32_t u;
    float f;
    bool flag;
    const uint8_t *p;
    const char *t;
    size_t len;
    (void)fl_cbor_get_int(&r, "s", &i);
    (void)fl_cbor_get_u32(&r, "n", &u);
    (void)fl_cbor_get_f32(&r, "x", &f);
    (void)fl_cbor_get_bool(&r, "off", &flag);
    if (fl_cbor_get_bytes(&r, "data", &p, &len) == FL_OK) {
        MUST(p >= b && p + len <= b + n);
    }
    if (fl_cbor_get_text(&r, "x", &t, &len) == FL_OK) {
        MUST((const uint8_t *)t >= b && (const uint8_t *)t + len <= b + n);
    }
    free(b);
}

static void fuzz_message(const uint8_t *msg, size_t n, bool whole) {
    uint8_t *m = exact(msg, n);
    fl_smp_t h;
    size_t entries = 0;
    int unpacked = fl_smp_unpack(m, n, &h);
    int checked = fl_smp_check(m, n, &entries);
    if (whole) {
        MUST(unpacked == FL_OK);
        MUST(checked == FL_OK);
    }
    free(m);
}

// The same bytes in one piece and one by one give the same messages.
static uint32_t deframe(const uint8_t *bytes, size_t n, size_t cap, unsigned flags, bool single, uint64_t gaps) {
    uint8_t *buf = malloc(cap);
    MUST(buf != NULL);
    fl_deframe_t st;
    MUST(fl_deframe_init(&st, buf, cap, flags) == FL_OK);
    uint32_t trace = 0;
    uint32_t text = 0;
    for (size_t at = 0; at < n;) {
        size_t piece = single ? 1 : n - at;
        uint8_t *b = exact(bytes + at, piece);
        size_t done = 0;
        while (done < piece) {
            size_t used = SIZE_MAX;
            int rc = fl_deframe_feed(&st, b + done, piece - done, &used);
            MUST(used <= piece - done);
            MUST(used > 0 || st.text_len > 0);
            text = fl_crc32(text, st.text, st.text_len);
            if (rc > 0) {
                MUST((size_t)rc + FL_DEFRAME_EXTRA <= cap && rc >= FL_SMP_HEADER);
                fl_smp_t h;
                int ok = fl_smp_unpack(st.msg, (size_t)rc, &h);
                MUST(ok == FL_OK || st.framing == FL_FRAMING_CONSOLE);
                trace = fl_crc32(trace, st.msg, (size_t)rc);
            } else {
                MUST(rc == 0 || rc == FL_EBADMSG || rc == FL_ENOMEM);
            }
            done += used;
        }
        free(b);
        at += piece;
    }
    if (gaps & 1) {
        (void)fl_deframe_gap(&st);
        MUST(fl_deframe_gap(&st) == 0);
    }
    MUST(n == 0 || st.frames + st.bad <= n);
    free(buf);
    return trace ^ text ^ st.frames << 20 ^ st.bad << 10 ^ st.noise;
}

static void fuzz_stream(const uint8_t *msg, size_t len) {
    uint8_t stream[4096];
    size_t n = 0;
    if (below(2) != 0) {
        memcpy(stream, msg, len);
        n = len;
    } else {
        fl_framer_t f;
        fl_framer_init(&f, msg, len);
        n = fl_framer_next(&f, stream, 3000);
        MUST(f.pos == len + FL_DEFRAME_EXTRA ? n == fl_framer_bytes(len) : n > 0);
    }
    if (n + 200 < sizeof stream && below(2) != 0) { // a second, half frame
        memcpy(stream + n, stream, 150 < n ? 150 : n);
        n += 150 < n ? 150 : n;
    }
    n = mutate(stream, n);
    // Half of the time the message just fits, or just does not.
    size_t cap = below(2) != 0 ? 64 + below(2000) : len - 4 + below(16);
    cap = cap < 64 ? 64 : cap;
    unsigned flags = below(4);
    uint64_t gaps = rnd();
    MUST(deframe(stream, n, cap, flags, false, gaps) == deframe(stream, n, cap, flags, true, gaps));
}

// A model of the session: which numbers ran.
static void fuzz_session(void) {
    uint8_t kept[16];
    fl_session_t st;
    fl_session_init(&st, rnd(), kept, sizeof kept);
    uint32_t id = 0;
    uint32_t last = 0;
    uint8_t last_cmd = 0;
    bool stored = false;
    for (int i = 0; i < 40; i++) {
        if (below(8) == 0) {
            uint32_t fresh = fl_session_open(&st, rnd());
            MUST(fresh != 0 && fresh != id);
            id = fresh;
            last = 0;
            stored = false;
        }
        uint32_t n = last + below(3);
        uint8_t cmd = (uint8_t)below(2);
        bool mine = id != 0 && below(8) != 0;
        int rc = fl_session_begin(&st, mine ? id : id ^ 1u, n, cmd);
        if (!mine) {
            MUST(rc == (id == 0 ? FL_ENOENT : FL_EBUSY));
            continue;
        }
        MUST((rc == FL_SESSION_RUN) == (n == last + 1));
        if (rc == FL_SESSION_RUN) {
            last = n;
            last_cmd = cmd;
            stored = false;
            if (below(4) != 0) {
                uint8_t reply[17] = {cmd, (uint8_t)n};
                size_t len = below(18);
                MUST(fl_session_end(&st, reply, len) == (len > sizeof kept ? FL_ENOMEM : FL_OK));
                stored = len <= sizeof kept;
            }
        } else if (n == last && n != 0 && cmd == last_cmd) {
            MUST((rc == FL_SESSION_REPEAT) == stored);
        } else {
            MUST(rc == FL_EINVAL);
        }
    }
}

int main(int argc, char **argv) {
    MUST(argc == 3);
    long rounds = strtol(argv[1], NULL, 10);
    state = strtoull(argv[2], NULL, 10);
    for (long i = 0; i < rounds; i++) {
        uint8_t msg[2048];
        size_t len = random_message(msg, 64 + below(sizeof msg - 64));
        if (len == 0) {
            continue; // it did not fit: the overflow flag was the test
        }
        fuzz_message(msg, len, true);
        fuzz_stream(msg, len);
        size_t n = mutate(msg, len);
        fuzz_message(msg, n, false);
        if (n > FL_SMP_HEADER) {
            fuzz_cbor(msg + FL_SMP_HEADER, n - FL_SMP_HEADER);
        }
        for (size_t k = 0; k < 64; k++) {
            msg[k] = (uint8_t)rnd();
        }
        fuzz_cbor(msg, below(64));
        fuzz_session();
    }
    printf("ok %ld\n", rounds);
    return 0;
}
