// Hostile flash: a real store, damaged in many ways, and stores made up of valid headers with wild
// numbers. Nothing may crash, loop or break a flash rule, and what is appended afterwards must be found.
//
//   fuzz ROUNDS SEED
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_store.h"
#include "nor.h"
#include "store/fl_log.h"

static uint32_t state;

static uint32_t dice(uint32_t n) {
    return nor_random(&state) % n;
}

// Small, near the edges of the type, or anything.
static uint32_t wild(void) {
    switch (dice(4)) {
        case 0:
            return dice(8);
        case 1:
            return UINT32_MAX - dice(4);
        case 2:
            return dice(1 << 14);
        default:
            return nor_random(&state);
    }
}

static int append(fl_store_t *st, uint8_t who, uint8_t what, uint32_t len) {
    static uint8_t payload[4096];
    uint8_t uid[FL_STORE_UID_BYTES] = {who};
    memset(payload, what, len);
    fl_store_piece_t pieces[2] = {{payload, len / 2}, {payload + len / 2, len - len / 2}};
    return fl_store_append(st, (uint16_t)(1 + who % 2), uid, pieces, 2);
}

static void damage(nor_t *nor) {
    uint32_t size = nor->flash.sector_bytes * nor->flash.sector_count;
    for (uint32_t i = dice(12); i > 0; i--) {
        uint32_t at = dice(size);
        switch (dice(4)) {
            case 0:
                nor->bytes[at] ^= (uint8_t)(1u << dice(8));
                break;
            case 1:
                memset(nor->bytes + at, dice(2) ? 0xFF : 0x00, size - at < 40 ? size - at : 40);
                break;
            case 2: // a stale copy of another sector
                memmove(nor->bytes + dice(nor->flash.sector_count) * nor->flash.sector_bytes,
                    nor->bytes + dice(nor->flash.sector_count) * nor->flash.sector_bytes, nor->flash.sector_bytes);
                break;
            default:
                nor->bytes[at] = (uint8_t)dice(256);
        }
    }
}

// Headers whose CRCs match and whose numbers mean nothing.
static void make_up(nor_t *nor) {
    const fl_flash_t *flash = &nor->flash;
    uint32_t base = wild();
    for (uint32_t sector = 0; sector < flash->sector_count; sector++) {
        uint8_t *p = nor->bytes + sector * flash->sector_bytes;
        uint8_t head[FL_LOG_CHUNK];
        fl_log_sector_t s = {dice(2) ? base + dice(flash->sector_count) : wild(),
            dice(3) ? 0 : fl_log_round_up(wild() % flash->sector_bytes, flash->prog_bytes)};
        memcpy(p, head, fl_log_sector_pack(flash, &s, head));
        uint32_t off = fl_log_data_start(flash) + (s.cont < flash->sector_bytes ? s.cont : 0);
        while (off + FL_LOG_RECORD_HEADER <= flash->sector_bytes) {
            fl_store_rec_t rec = {.seq = wild(), .len = wild() % (dice(2) ? 200 : UINT32_MAX),
                .crc = wild(), .type = (uint16_t)dice(4), .uid = {(uint8_t)dice(12)}};
            bool wraps = rec.len >= flash->sector_bytes;
            uint32_t end = off + (wraps ? 0 : fl_log_record_bytes(flash, rec.len));
            if (end <= flash->sector_bytes && end > off) {
                rec.crc = fl_crc32(0, p + off + FL_LOG_RECORD_HEADER, rec.len);
            } else {
                end = flash->sector_bytes;
            }
            fl_log_record_pack(&rec, (uint8_t)dice(4), p + off);
            off = end;
        }
    }
}

static void need(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "FUZZ: %s\n", what);
        exit(1);
    }
}

// Reads all there is; every answer must be in the range of answers.
static void look(fl_store_t *st) {
    static uint8_t buf[4096];
    fl_store_rec_t rec;
    for (unsigned i = 0; fl_store_each(st, i, &rec) == FL_OK; i++) {
        need(i < 2 * FL_STORE_KEYS, "at most two records a key");
        need(fl_store_verify(st, &rec) == FL_OK, "a live record is whole");
        uint32_t n = rec.len < sizeof(buf) ? rec.len : (uint32_t)sizeof(buf);
        need(fl_store_read(st, &rec, rec.len - n, buf, n) == FL_OK, "a live record reads");
        need(fl_store_read(st, &rec, rec.len, buf, 1) == FL_EINVAL, "no byte beyond the end");
        rec.seq += 1000;
        rec.sector = (uint16_t)wild();
        rec.off = wild();
        fl_store_read(st, &rec, 0, buf, rec.len < 8 ? rec.len : 8);
    }
}

static void one_round(void) {
    static const uint32_t sector_sizes[] = {256, 512, 1024, 4096};
    uint32_t sector_count = 2 + dice(10);
    nor_t nor;
    fl_store_t st;
    nor_open(&nor, sector_sizes[dice(4)], sector_count, 1u << dice(6), false);
    need(fl_store_mount(&st, &nor.flash, NULL, 0) == FL_OK, "a blank flash mounts");
    for (uint32_t i = dice(30); i > 0; i--) {
        int err = append(&st, (uint8_t)dice(12), (uint8_t)dice(256), dice(2) ? dice(60) : dice(2000));
        need(err == FL_OK || err == FL_ENOSPC, "an append works or is refused");
    }
    look(&st);
    if (dice(2)) {
        damage(&nor);
    } else {
        make_up(&nor);
        if (dice(2)) {
            damage(&nor);
        }
    }
    static const uint8_t listed[3][FL_STORE_UID_BYTES] = {{1}, {2}, {11}};
    int err = fl_store_mount(&st, &nor.flash, dice(2) ? listed : NULL, 3);
    need(err == FL_OK || err == FL_ENOTSUP, "a damaged flash mounts or is refused");
    if (err) {
        need(fl_store_format(&st, &nor.flash) == FL_OK, "format");
    }
    look(&st);
    for (uint32_t i = dice(8); i > 0; i--) {
        uint8_t who = (uint8_t)dice(12);
        uint8_t uid[FL_STORE_UID_BYTES] = {who};
        fl_store_rec_t rec;
        uint32_t len = dice(100);
        err = append(&st, who, (uint8_t)i, len);
        need(err == FL_OK || err == FL_ENOSPC || err == FL_EBADMSG, "an append answers");
        if (err == FL_OK) {
            if (dice(2)) {
                need(fl_store_mount(&st, &nor.flash, NULL, 0) == FL_OK, "it mounts again");
            }
            need(fl_store_find(&st, (uint16_t)(1 + who % 2), uid, 0, &rec) == FL_OK && rec.len == len,
                "what was appended is found");
        }
        if (fl_store_find(&st, FL_STORE_ANY, uid, dice(2), &rec) == FL_OK) {
            err = fl_store_copy(&st, &rec);
            need(err == FL_OK || err == FL_ENOSPC || err == FL_EBADMSG, "a copy answers");
        }
    }
    look(&st);
    if (append(&st, 1, 1, 1) == FL_EBADMSG) { // the numbers are used up: the documented way out works
        need(fl_store_format(&st, &nor.flash) == FL_OK && append(&st, 1, 1, 1) == FL_OK, "format");
    }
    nor_close(&nor);
}

int main(int argc, char **argv) {
    uint32_t rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 1000;
    state = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 1;
    for (uint32_t i = 0; i < rounds; i++) {
        one_round();
    }
    printf("rounds=%u\n", (unsigned)rounds);
    return 0;
}
