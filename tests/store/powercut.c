// Cuts the power after and inside every flash operation of a run of commits, and looks at what is left.
//
//   powercut SECTOR_BYTES SECTOR_COUNT PROG_BYTES PAYLOAD_BYTES COMMITS SEEDS ECC
//
// prints one line of key=value and exits 0, or tells what was lost and exits 1. The run appends to three
// keys: a main one that commits and undoes, a small one of the same model, and one of another model that
// is written once in a while and must survive untouched; it reboots now and then.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_store.h"
#include "nor.h"

enum { KEYS = 3 };

static const uint16_t key_type[KEYS] = {1, 2, 1};
static const uint8_t key_uid[KEYS][FL_STORE_UID_BYTES] = {{0xA1, 2, 3}, {0xA1, 2, 3}, {0xB7, 8, 9}};

typedef struct {
    uint32_t id;  // which content; 0: no record
    uint32_t len; // bytes
} content_t;

typedef struct {
    content_t newest[KEYS][2]; // what must be there
    uint32_t step;
    uint32_t seq[KEYS]; // of the newest records, as the store numbers them
} model_t;

typedef struct {
    uint32_t sector_bytes, sector_count, prog_bytes, payload, commits, seeds, ecc;
} config_t;

typedef struct {
    uint32_t after, inside, failed, old_state, new_state, second_cuts;
} tally_t;

static char where[200];

static void lost(const char *what) {
    printf("LOST: %s (%s)\n", what, where);
    exit(1);
}

static uint8_t byte_of(content_t c, uint32_t i) {
    uint32_t state = c.id * 2654435761u + i;
    // Runs of 0xFF and of 0x00 among noise: what erased and programmed flash looks like.
    return c.id % 5 == 0 ? 0xFF : c.id % 7 == 0 && i % 64 < 32 ? 0x00 : (uint8_t)nor_random(&state);
}

static void check_content(fl_store_t *st, unsigned key, unsigned nth, content_t want) {
    static uint8_t buf[1 << 16];
    fl_store_rec_t rec;
    int err = fl_store_find(st, key_type[key], key_uid[key], nth, &rec);
    if (want.id == 0) {
        if (err != FL_ENOENT) {
            lost("a record that never was written");
        }
        return;
    }
    if (err || rec.len != want.len || rec.len > sizeof(buf)) {
        lost("a whole record");
    }
    if (fl_store_read(st, &rec, 0, buf, rec.len) || fl_store_verify(st, &rec)) {
        lost("the payload of a record");
    }
    for (uint32_t i = 0; i < rec.len; i++) {
        if (buf[i] != byte_of(want, i)) {
            lost("a byte of a payload");
        }
    }
}

// The newest record's place in history; 0: none.
static uint32_t newest_seq(fl_store_t *st, unsigned key) {
    fl_store_rec_t rec;
    return fl_store_find(st, key_type[key], key_uid[key], 0, &rec) == FL_OK ? rec.seq : 0;
}

static void check_model(fl_store_t *st, const model_t *m) {
    for (unsigned key = 0; key < KEYS; key++) {
        check_content(st, key, 0, m->newest[key][0]);
        check_content(st, key, 1, m->newest[key][1]);
    }
}

static unsigned key_of(uint32_t step) {
    return step % 5 == 1 ? 2 : step % 4 == 2 ? 1 : 0;
}

// The next commit of the run; *m tells what must be there once it is whole.
static int commit(fl_store_t *st, const config_t *cfg, model_t *m) {
    uint32_t step = m->step++;
    unsigned key = key_of(step);
    content_t *newest = m->newest[key];
    if (key == 0 && step % 6 == 5 && newest[1].id != 0) { // undo
        content_t back = newest[1];
        fl_store_rec_t rec;
        if (fl_store_find(st, key_type[0], key_uid[0], 1, &rec)) {
            lost("the record before the newest");
        }
        newest[1] = newest[0];
        newest[0] = back;
        return fl_store_copy(st, &rec);
    }
    content_t c = {step + 1, key == 0 ? cfg->payload - step % 3 * (cfg->payload / 4) : key == 1 ? 0 : 11};
    newest[1] = newest[0];
    newest[0] = c;
    static uint8_t buf[1 << 16];
    for (uint32_t i = 0; i < c.len; i++) {
        buf[i] = byte_of(c, i);
    }
    uint32_t a = c.len / 3;
    uint32_t b = c.len / 3 * 2 + c.len % 3 / 2;
    fl_store_piece_t pieces[] = {{buf, a}, {NULL, 0}, {buf + a, b - a}, {buf + b, c.len - b}};
    return fl_store_append(st, key_type[key], key_uid[key], pieces, 4);
}

static void mount(fl_store_t *st, nor_t *nor) {
    if (fl_store_mount(st, &nor->flash, NULL, 0)) {
        lost("the store itself");
    }
}

// Runs the commits until the end or the cut. Returns true when it came; *before and *after are the
// states around the commit that it hit.
static bool run(fl_store_t *st, nor_t *nor, const config_t *cfg, uint32_t commits, model_t *before, model_t *after) {
    for (uint32_t i = 0; i < commits; i++) {
        for (unsigned key = 0; key < KEYS; key++) {
            after->seq[key] = newest_seq(st, key);
        }
        *before = *after;
        int err = commit(st, cfg, after);
        if (nor->hit) {
            return true;
        }
        if (err) {
            printf("refused: error %d, needs %u of %u bytes (%s)\n", err, (unsigned)st->needed,
                (unsigned)st->available, where);
            exit(1);
        }
        if (after->step % 3 == 0) { // a reboot in between
            mount(st, nor);
        }
    }
    return false;
}

// After a cut: the old state or the new one, nothing else. *m becomes the one that is there.
static bool settle(fl_store_t *st, nor_t *nor, const model_t *before, const model_t *after, model_t *m) {
    nor_power_on(nor);
    mount(st, nor);
    unsigned key = key_of(before->step);
    bool is_new = newest_seq(st, key) != before->seq[key];
    *m = is_new ? *after : *before;
    m->step = after->step;
    check_model(st, m);
    return is_new;
}

static void cut_once(const config_t *cfg, uint32_t op, nor_cut_t kind, uint32_t seed, tally_t *tally) {
    nor_t nor;
    fl_store_t st;
    model_t before = {0};
    model_t after = {0};
    model_t m;
    nor_open(&nor, cfg->sector_bytes, cfg->sector_count, cfg->prog_bytes, cfg->ecc != 0);
    static const char *const kinds[] = {"cut after", "cut inside", "failure inside"};
    snprintf(where, sizeof(where), "%s operation %u, seed %u", kinds[kind], (unsigned)op, (unsigned)seed);
    nor.cut_at = op;
    nor.cut = kind;
    nor.seed = seed * 7919u + op;
    mount(&st, &nor);
    if (!run(&st, &nor, cfg, cfg->commits, &before, &after)) {
        lost("the operation to cut");
    }
    if (kind == FAIL_INSIDE) { // the old state goes on until a mount decides
        check_model(&st, &before);
        m = before;
        if (commit(&st, cfg, &m) != FL_EIO) {
            lost("the refusal to go on after an error");
        }
    }
    bool is_new = settle(&st, &nor, &before, &after, &m);
    tally->old_state += !is_new;
    tally->new_state += is_new;
    *(kind == CUT_AFTER ? &tally->after : kind == CUT_INSIDE ? &tally->inside : &tally->failed) += 1;

    // A second cut while it goes on, at any of its next operations, inside or after.
    uint32_t dice = seed * 31u + op;
    nor_power_on(&nor);
    nor.cut_at = nor.ops + nor_random(&dice) % 24;
    nor.cut = nor_random(&dice) % 3 == 0 ? CUT_AFTER : CUT_INSIDE;
    after = m;
    if (run(&st, &nor, cfg, 4, &before, &after)) {
        settle(&st, &nor, &before, &after, &m);
        tally->second_cuts++;
    } else {
        m = after;
    }
    // And then it simply works.
    nor_power_on(&nor);
    for (int i = 0; i < 4; i++) {
        run(&st, &nor, cfg, 1, &before, &m);
        check_model(&st, &m);
    }
    mount(&st, &nor);
    check_model(&st, &m);
    nor_close(&nor);
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: powercut SECTOR_BYTES SECTOR_COUNT PROG_BYTES PAYLOAD COMMITS SEEDS ECC\n");
        return 64;
    }
    uint32_t v[7];
    for (int i = 0; i < 7; i++) {
        v[i] = (uint32_t)strtoul(argv[i + 1], NULL, 0);
    }
    config_t cfg = {v[0], v[1], v[2], v[3], v[4], v[5], v[6]};
    if (cfg.payload > 1 << 16) {
        return 64;
    }

    // Once without a cut: how many operations there are, and how far the ring is gone round.
    nor_t nor;
    fl_store_t st;
    model_t before = {0};
    model_t after = {0};
    snprintf(where, sizeof(where), "no cut");
    nor_open(&nor, cfg.sector_bytes, cfg.sector_count, cfg.prog_bytes, cfg.ecc != 0);
    mount(&st, &nor);
    run(&st, &nor, &cfg, cfg.commits, &before, &after);
    mount(&st, &nor);
    check_model(&st, &after);
    uint32_t ops = nor.ops;
    uint32_t least = UINT32_MAX;
    uint32_t most = 0;
    for (uint32_t i = 0; i < cfg.sector_count; i++) {
        least = nor.wear[i] < least ? nor.wear[i] : least;
        most = nor.wear[i] > most ? nor.wear[i] : most;
    }
    nor_close(&nor);

    tally_t tally = {0};
    for (uint32_t op = 0; op < ops; op++) {
        cut_once(&cfg, op, CUT_AFTER, 0, &tally);
        for (uint32_t seed = 0; seed < cfg.seeds; seed++) {
            cut_once(&cfg, op, CUT_INSIDE, seed, &tally);
            cut_once(&cfg, op, FAIL_INSIDE, seed, &tally);
        }
    }
    printf("operations=%u after=%u inside=%u failed=%u old=%u new=%u second=%u wear_min=%u wear_max=%u\n", (unsigned)ops,
        (unsigned)tally.after, (unsigned)tally.inside, (unsigned)tally.failed, (unsigned)tally.old_state,
        (unsigned)tally.new_state, (unsigned)tally.second_cuts, (unsigned)least, (unsigned)most);
    return 0;
}
