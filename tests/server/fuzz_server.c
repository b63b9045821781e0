// Fuzzes the device server under ASan and UBSan: whole conversations of valid, mutated and random messages, over flash
// that keeps NOR's rules and sometimes fails, with restarts between them.
//
//     fuzz_server IMAGE ROUNDS SEED    prints "ok ROUNDS, N commits, N models" or aborts
//
// Every request and every reply lies in a heap block of exactly its size. What must hold beside memory safety is checked
// with MUST(): a reply fits, is well-formed, is the reply to its request, and an error tells a number and a reason.
#define _POSIX_C_SOURCE 200112L // posix_memalign
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/chance.h"
#include "../store/nor.h"
#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_server.h"
#include "fieldloop/fl_sha256.h"

#define MUST(x)                                                     \
    do {                                                            \
        if (!(x)) {                                                 \
            fprintf(stderr, "%d: %s does not hold\n", __LINE__, #x); \
            abort();                                                \
        }                                                           \
    } while (0)

enum { SECTORS = 8, MEMORY = 24 * 1024, SAMPLE = 16, BUF = 1200 };

static nor_t flash[3]; // model0, model1, store
static fl_server_slot_t slots[2];
static fl_server_config_t config;
static fl_server_t server;
static uint8_t *image;
static uint32_t image_bytes;
static uint32_t boots, commits, models;

static uint32_t below(uint32_t n) {
    return any() % n;
}

// ---- a device

static bool count_begin(void *ctx) {
    (void)ctx;
    return one_in(2);
}

static uint64_t count_end(void *ctx) {
    (void)ctx;
    return any();
}

static void counters(void *ctx, uint32_t four[4]) {
    (void)ctx;
    for (int i = 0; i < 4; ++i) {
        four[i] = any();
    }
}

// Its memory is as tight as it may be, in a block of exactly its size.
static void restart(void) {
    free(config.memory);
    for (int i = 0; i < 3; ++i) {
        nor_power_on(&flash[i]);
        flash[i].cut_at = UINT32_MAX;
    }
    bool counts = one_in(2);
    config.memory_bytes = one_in(3) ? 700 + below(4096) : MEMORY;
    void *memory;
    MUST(posix_memalign(&memory, 16, config.memory_bytes) == 0);
    config.memory = memory;
    config.boot = ++boots;
    config.count_begin = counts ? count_begin : NULL;
    config.count_end = counts ? count_end : NULL;
    config.port_counters = counts ? counters : NULL;
    MUST(fl_server_open(&server, &config) == FL_OK);
}

static void open_device(void) {
    for (int i = 0; i < 3; ++i) {
        nor_open(&flash[i], 1024, i < 2 ? SECTORS : 2 * SECTORS, 8, false);
    }
    slots[0] = (fl_server_slot_t){"model0", &flash[0].flash, flash[0].bytes};
    slots[1] = (fl_server_slot_t){"model1", &flash[1].flash, flash[1].bytes};
    config = (fl_server_config_t){
        .slots = slots, .slot_count = 2, .store = &flash[2].flash, .board = "fuzz", .os = "none",
        .buf_bytes = BUF, .group = FL_LINK_GROUP,
    };
    restart();
}

// ---- requests

static void put_u32(fl_cbor_w_t *w, const char *key, uint32_t v) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_int(w, v);
}

static void put_bytes(fl_cbor_w_t *w, const char *key, const void *p, size_t n) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_bytes(w, p, n);
}

static void put_text(fl_cbor_w_t *w, const char *key, const char *text) {
    fl_cbor_put_str(w, key);
    fl_cbor_put_str(w, text);
}

static const char *slot_name(void) {
    static const char *const names[] = {"model0", "model1", "model0", "store", "/flash/m.flm", ""};
    return names[below(6)];
}

static void put_samples(fl_cbor_w_t *w, bool labels) {
    uint8_t x[8 * SAMPLE], y[8];
    uint32_t count = one_in(8) ? below(8) : 1;
    for (size_t i = 0; i < sizeof x; i++) {
        x[i] = (uint8_t)any();
    }
    for (size_t i = 0; i < sizeof y; i++) {
        y[i] = (uint8_t)below(one_in(20) ? 256 : 4);
    }
    put_bytes(w, "x", x, count * SAMPLE + (one_in(30) ? below(3) : 0));
    if (labels) {
        put_bytes(w, "y", y, one_in(30) ? below(8) : count);
    }
}

static void put_settings(fl_cbor_w_t *w) {
    static const char *const names[] = {
        "selector", "skip", "unit", "rank", "search", "bias_mode", "k_rule", "deltas", "weights", "optimizer", "layers",
        "floor", "batch", "max_step", "s_min", "s_max", "zeta", "d_min", "d_max", "d_thr", "rho", "lr", "beta1", "beta2",
        "replays", "memory", "holdout", "seed", "mask", "speed",
    };
    static const char *const choices[] = {"tinyprop", "dense", "topk", "mask", "budget", "int16", "f32", "momentum",
        "adam", "channel", "off", "on", "auto"};
    fl_cbor_put_str(w, "cfg");
    fl_cbor_put_map(w, FL_CBOR_INDEFINITE);
    if (!one_in(3)) {
        put_u32(w, "replays", below(2));
        put_u32(w, "memory", below(4));
        put_u32(w, "holdout", one_in(2) ? 0 : 3);
        put_text(w, "weights", one_in(2) ? "int8" : "int16");
        put_u32(w, "batch", one_in(2) ? 1 : 3);
    }
    for (uint32_t i = one_in(2) ? below(4) : 0; i > 0; i--) {
        fl_cbor_put_str(w, names[below(sizeof names / sizeof *names)]);
        switch (below(5)) {
        case 0: fl_cbor_put_str(w, choices[below(sizeof choices / sizeof *choices)]); break;
        case 1: fl_cbor_put_int(w, (int64_t)below(6) - 1); break;
        case 2: fl_cbor_put_f32(w, (float)below(100) / 50.0f); break;
        case 3: fl_cbor_put_int(w, (int64_t)((uint64_t)any() << 32 | any())); break;
        default:
            fl_cbor_put_array(w, 2);
            fl_cbor_put_f32(w, (float)below(40) / 30.0f);
            fl_cbor_put_int(w, below(3));
        }
    }
    fl_cbor_put_break(w);
}

static void put_push(fl_cbor_w_t *w) {
    bool goes_on = server.pushing && server.push_next > 0 && !one_in(6);
    uint32_t length = one_in(12) ? any() >> below(32) : image_bytes;
    uint32_t off = goes_on ? server.push_next : one_in(8) ? below(image_bytes) : 0;
    uint32_t n = off < image_bytes ? image_bytes - off : 0;
    uint8_t sha[32];
    fl_sha256_t st;
    fl_sha256_init(&st);
    fl_sha256_update(&st, image, image_bytes);
    fl_sha256_final(&st, sha);
    sha[0] ^= one_in(20) ? 1 : 0;
    n = n < 1000 && !one_in(4) ? n : below(1000 < n ? 1000 : n + 1);
    put_text(w, "to", goes_on ? slots[server.push_slot].name : slot_name());
    put_u32(w, "off", off);
    if (off == 0) {
        put_u32(w, "len", length);
        put_bytes(w, "sha", sha, one_in(30) ? 31 : 32);
    }
    uint8_t data[1000];
    memcpy(data, image + off % image_bytes, n);
    if (n > 0 && one_in(40)) {
        data[below(n)] ^= (uint8_t)(1 << below(8));
    }
    put_bytes(w, "data", data, n);
}

// The image as the slot holds it now is often the one to activate.
static void put_activate(fl_cbor_w_t *w) {
    const fl_server_slot_t *slot = &slots[below(2)];
    uint32_t length;
    memcpy(&length, slot->bytes + 8, sizeof length);
    uint8_t sha[32];
    fl_sha256_t st;
    fl_sha256_init(&st);
    fl_sha256_update(&st, slot->bytes, length <= SECTORS * 1024 ? length : 0);
    fl_sha256_final(&st, sha);
    sha[5] ^= one_in(12) ? 1 : 0;
    put_text(w, "slot", one_in(12) ? slot_name() : slot->name);
    put_bytes(w, "sha", sha, sizeof sha);
}

static void put_job(fl_cbor_w_t *w) {
    static const char *const verbs[] = {"train", "evaluate", "selftest", "pause", "resume", "cancel", "sing"};
    put_text(w, "do", verbs[below(7)]);
    put_u32(w, "of", 1 + below(one_in(9) ? 100000 : 20));
    put_u32(w, "job", one_in(6) ? any() : server.jobs);
    if (one_in(2)) {
        put_u32(w, "every", below(5));
        put_u32(w, "patience", below(3));
        fl_cbor_put_str(w, "commit");
        fl_cbor_put_bool(w, one_in(2));
    }
}

static void put_file(fl_cbor_w_t *w) {
    bool goes_on = server.pushing && !server.push_named && server.push_next < image_bytes && !one_in(6);
    uint32_t off = goes_on ? server.push_next : one_in(2) ? 0 : below(image_bytes);
    put_u32(w, "off", off);
    char name[FL_SERVER_NAME + 1];
    (void)snprintf(name, sizeof name, "/%s", goes_on ? slots[server.push_slot].name : one_in(9) ? "x" : slots[below(2)].name);
    put_text(w, "name", one_in(9) ? slot_name() : name);
    if (goes_on || one_in(2)) {
        put_u32(w, "len", one_in(9) ? any() : image_bytes);
        put_bytes(w, "data", image + off, image_bytes - off < 1000 ? image_bytes - off : below(1000));
    }
}

// A store may hold what another firmware, or a fault, wrote: whole records of any bytes.
static void foreign_record(void) {
    uint8_t junk[400], uid[16] = {0};
    uint32_t n = one_in(2) ? (one_in(2) ? 128 : 52 + below(20)) : below(sizeof junk);
    for (size_t i = 0; i < sizeof junk; i++) {
        junk[i] = (uint8_t)(one_in(2) ? any() : below(3));
    }
    if (!one_in(3)) {
        memcpy(uid, image + 16, sizeof uid);
    }
    if (one_in(2)) {
        memcpy(junk + 36, image + 16, 16);
        memcpy(junk + 52, "model0", 6);
    }
    const fl_store_piece_t piece = {junk, n};
    (void)fl_store_append(&server.store, (uint16_t)(1 + below(3)), uid, &piece, 1);
}

static void put_fields(fl_cbor_w_t *w, uint8_t cmd) {
    switch (cmd) {
    case 1: put_u32(w, "nonce", any()); break;
    case 2: put_push(w); break;
    case 3: put_activate(w); break;
    case 4: put_samples(w, false); break;
    case 5: put_settings(w); break;
    case 6:
    case 15: put_samples(w, true); break;
    case 11:
        fl_cbor_put_str(w, "layers");
        fl_cbor_put_bool(w, one_in(2));
        break;
    case 12:
        put_text(w, "kind", one_in(2) ? "state" : one_in(9) ? "soul" : "image");
        put_u32(w, "off", one_in(3) ? 0 : below(3000));
        if (one_in(2)) {
            put_u32(w, "max", below(400));
        }
        break;
    case 13: put_u32(w, "paint", any()); break;
    case 14: put_job(w); break;
    default: break;
    }
}

// A valid message, header first; the next of its session most of the time.
static size_t make_request(uint8_t *buf, size_t cap) {
    // by weight: what trains and what keeps comes often
    static const uint8_t reads[] = {0, 4, 4, 4, 11, 12, 12, 13, 14, 15, 99};
    static const uint8_t writes[] = {1, 2, 2, 2, 2, 3, 5, 5, 6, 6, 6, 6, 7, 7, 8, 9, 10, 13, 14, 14, 14, 15, 99};
    bool write = !one_in(3);
    bool uploads = server.pushing && !server.push_named && !one_in(3);
    fl_smp_t h = {.op = write ? FL_SMP_WRITE : FL_SMP_READ, .version = 1, .group = FL_LINK_GROUP, .seq = (uint8_t)any()};
    h.cmd = write ? writes[below(sizeof writes)] : reads[below(sizeof reads)];
    if (server.session.id == 0 && one_in(2)) {
        h.op = FL_SMP_WRITE;
        h.cmd = 1;
        write = true;
    }
    if (uploads || one_in(12)) {
        h.group = !uploads && one_in(3) ? (uint16_t)below(300) : FL_SERVER_GROUP_FILES;
        h.cmd = (uint8_t)below(one_in(2) ? 1 : 5);
    }
    fl_cbor_w_t w;
    fl_smp_begin(&w, buf, cap, &h);
    if (h.group == FL_SERVER_GROUP_FILES) {
        put_file(&w);
    } else {
        if (write && h.cmd != 1) {
            put_u32(&w, "s", one_in(40) ? any() : server.session.id);
            put_u32(&w, "n", server.session.last + (one_in(15) ? below(3) : 1));
        }
        put_fields(&w, h.cmd);
    }
    int len = fl_smp_end(&w);
    return len > 0 ? (size_t)len : 0;
}

// The check of a mutated message is put right, so that more than the check gets to see it.
static void repair(uint8_t *msg, size_t n) {
    if (n < FL_SMP_HEADER + 12 || memcmp(msg + n - 10, "\x63" "crc\x1a", 5) != 0) {
        return;
    }
    uint8_t head[4] = {msg[0] & 7u, msg[4], msg[5], msg[7]};
    uint32_t crc = fl_crc32(fl_crc32(0, head, 4), msg + FL_SMP_HEADER + 1, n - FL_SMP_HEADER - 11);
    for (int i = 0; i < 4; ++i) {
        msg[n - 5 + i] = (uint8_t)(crc >> (24 - 8 * i));
    }
}

static size_t mutate(uint8_t *b, size_t n) {
    static const uint8_t liked[] = {0xff, 0xbf, 0x9f, 0x7f, 0x5b, 0xbb, 0x9b, 0, 0x1b, 0x3b, 0xfa, 0xf6, 0x60, 0x40};
    for (uint32_t i = 1 + below(3); i > 0 && n > FL_SMP_HEADER + 1; i--) {
        size_t at = one_in(9) ? below((uint32_t)n) : FL_SMP_HEADER + below((uint32_t)(n - FL_SMP_HEADER));
        switch (below(5)) {
        case 0: b[at] = (uint8_t)any(); break;
        case 1: b[at] = liked[below(sizeof liked)]; break;
        case 2: b[at] ^= (uint8_t)(1 << below(8)); break;
        case 3:
            memmove(b + at, b + at + 1, n - at - 1);
            n--;
            break;
        default: n = one_in(4) ? at + 1 : n; break;
        }
    }
    if (!one_in(9)) {
        b[2] = (uint8_t)((n - FL_SMP_HEADER) >> 8);
        b[3] = (uint8_t)(n - FL_SMP_HEADER);
    }
    if (!one_in(4)) {
        repair(b, n);
    }
    return n;
}

// ---- answers

static void check_reply(const uint8_t *request, const uint8_t *reply, size_t len) {
    fl_smp_t asked, h;
    MUST(fl_smp_unpack(request, FL_SMP_HEADER + (size_t)(request[2] << 8 | request[3]), &asked) == FL_OK);
    MUST(fl_smp_unpack(reply, len, &h) == FL_OK);
    MUST(h.op == (asked.op | 1) && h.group == asked.group && h.seq == asked.seq && h.cmd == asked.cmd);
    int check = fl_smp_check(reply, len, NULL);
    MUST(check == (h.group == FL_LINK_GROUP ? FL_OK : FL_ENOENT));
    if (h.group != FL_LINK_GROUP) {
        return;
    }
    fl_cbor_t map = fl_cbor_over(reply + FL_SMP_HEADER, len - FL_SMP_HEADER), err;
    if (fl_cbor_find(&map, "err", &err) == FL_OK) {
        uint32_t rc = 0;
        const char *text;
        size_t n = 0;
        MUST(fl_cbor_get_u32(&err, "rc", &rc) == FL_OK && rc > 0);
        MUST(fl_cbor_get_text(&map, "msg", &text, &n) == FL_OK && n > 0);
        return;
    }
    uint32_t rc;
    if (fl_cbor_get_u32(&map, "rc", &rc) != FL_OK && h.op == FL_SMP_WRITE_REPLY) {
        commits += h.cmd == 7;
        models += h.cmd == 3;
    }
}

static void exchange(const uint8_t *bytes, size_t n) {
    uint8_t *msg = malloc(n > 0 ? n : 1);
    size_t cap = one_in(4) ? 256 + below(300) : BUF;
    uint8_t *reply = malloc(cap);
    MUST(msg != NULL && reply != NULL);
    memcpy(msg, bytes, n);
    int len = fl_server_answer(&server, msg, n, reply, cap);
    MUST(len >= 0 && (size_t)len <= cap);
    if (len > 0) {
        check_reply(msg, reply, (size_t)len);
    }
    if (len > 0 && one_in(50)) { // the host did not get it
        int again = fl_server_answer(&server, msg, n, reply, cap);
        MUST(again > 0 && (size_t)again <= cap);
    }
    free(reply);
    free(msg);
}

static void firmware(void) {
    int8_t x[SAMPLE], y[4];
    float real[SAMPLE];
    for (int i = 0; i < SAMPLE; ++i) {
        x[i] = (int8_t)any();
        real[i] = one_in(60) ? 1e38f * 1e38f : (float)(int32_t)any() / 1e9f;
    }
    fl_step_t step;
    switch (below(4)) {
    case 0: MUST(fl_server_predict(&server, x, one_in(9) ? below(SAMPLE + 1) : SAMPLE, y, 4) < 4); break;
    case 1: MUST(fl_server_predict_f32(&server, real, SAMPLE, y, 4) < 4); break;
    case 2: (void)fl_server_step(&server, x, SAMPLE, below(5), &step); break;
    default: (void)fl_server_step_f32(&server, real, SAMPLE, below(5), one_in(2) ? NULL : &step); break;
    }
}

int main(int argc, char **argv) {
    MUST(argc == 4);
    FILE *f = fopen(argv[1], "rb");
    MUST(f != NULL);
    image = malloc(SECTORS * 1024);
    image_bytes = (uint32_t)fread(image, 1, SECTORS * 1024, f);
    fclose(f);
    MUST(image_bytes > 1000 && image_bytes < SECTORS * 1024);
    unsigned long rounds = strtoul(argv[2], NULL, 10);
    state = strtoul(argv[3], NULL, 10);
    open_device();
    for (unsigned long round = 0; round < rounds; ++round) {
        uint8_t msg[BUF + 64];
        size_t n = make_request(msg, sizeof msg);
        if (one_in(40)) {
            n = below(200);
            for (size_t i = 0; i < n; i++) {
                msg[i] = (uint8_t)any();
            }
        } else if (one_in(4)) {
            n = mutate(msg, n);
        }
        exchange(msg, n);
        for (uint32_t i = below(6); i > 0 && fl_server_busy(&server); i--) {
            fl_server_advance(&server);
        }
        if (one_in(10)) {
            firmware();
        }
        if (one_in(150)) { // some flash fails soon, and works again after a while
            nor_t *nor = &flash[below(3)];
            nor->cut_at = nor->ops + below(20);
            nor->cut = one_in(2) ? FAIL_INSIDE : one_in(2) ? CUT_INSIDE : CUT_AFTER;
            nor->seed = any();
        }
        if (one_in(200)) {
            if (one_in(4)) {
                foreign_record();
            }
            restart();
        }
    }
    printf("ok %lu, %u commits, %u models\n", rounds, (unsigned)commits, (unsigned)models);
    free(config.memory);
    free(image);
    for (int i = 0; i < 3; ++i) {
        nor_close(&flash[i]);
    }
    return 0;
}
