#include "fl_log.h"

#include <string.h>

#include "fieldloop/fl_crc.h"

// Offsets of the sector header.
enum { SH_MAGIC = 0, SH_VERSION = 4, SH_PROG = 5, SH_COUNT = 6, SH_BYTES = 8, SH_SEQ = 12, SH_CONT = 16, SH_CRC = 20 };
// Offsets of the record header.
enum { RH_MAGIC = 0, RH_FLAGS = 1, RH_TYPE = 2, RH_UID = 4, RH_SEQ = 20, RH_LEN = 24, RH_CRC = 28, RH_HEAD_CRC = 32 };

static const uint8_t sector_magic[4] = {'F', 'L', 'S', 'T'};
#define RECORD_MAGIC 0x5A

_Static_assert(SH_CRC + 4 == FL_LOG_SECTOR_HEADER, "sector header");
_Static_assert(RH_UID + FL_STORE_UID_BYTES == RH_SEQ, "uid");
_Static_assert(RH_HEAD_CRC + 4 == FL_LOG_RECORD_HEADER, "record header");
_Static_assert(FL_LOG_CHUNK % FL_FLASH_PROG_MAX == 0, "a chunk is whole program units");
_Static_assert(FL_LOG_CHUNK >= FL_LOG_RECORD_HEADER, "a header fits a chunk");
_Static_assert(FL_FLASH_SECTOR_MIN >= FL_FLASH_PROG_MAX + 2 * FL_LOG_RECORD_HEADER, "a sector holds a record");

static uint32_t get16(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t get32(const uint8_t *p) {
    return get16(p) | get16(p + 2) << 16;
}

static void put16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v) {
    put16(p, v);
    put16(p + 2, v >> 16);
}

static uint32_t log2_of(uint32_t power) {
    uint32_t n = 0;
    while (power > 1) {
        power >>= 1;
        n++;
    }
    return n;
}

// Bytes that the flash calls damaged are bytes that are not there; anything else it answers is passed on.
static int read_or_absent(const fl_flash_t *flash, uint32_t addr, void *buf, uint32_t n) {
    int err = flash->read(flash->ctx, addr, buf, n);
    return err == FL_EBADMSG ? FL_ENOENT : err;
}

int fl_log_sector_read(const fl_flash_t *flash, uint32_t sector, fl_log_sector_t *out) {
    uint8_t buf[FL_LOG_SECTOR_HEADER];
    int err = read_or_absent(flash, sector * flash->sector_bytes, buf, sizeof(buf));
    if (err) {
        return err;
    }
    if (memcmp(buf, sector_magic, sizeof(sector_magic)) != 0 || get32(buf + SH_CRC) != fl_crc32(0, buf, SH_CRC)) {
        return FL_ENOENT;
    }
    // No torn write has a matching CRC, so this is a store that somebody else keeps.
    if (buf[SH_VERSION] != FL_STORE_VERSION || buf[SH_PROG] != log2_of(flash->prog_bytes)
        || get16(buf + SH_COUNT) != flash->sector_count || get32(buf + SH_BYTES) != flash->sector_bytes) {
        return FL_ENOTSUP;
    }
    out->seq = get32(buf + SH_SEQ);
    out->cont = get32(buf + SH_CONT);
    if (out->seq == 0 || out->cont > fl_log_data_bytes(flash) || out->cont % flash->prog_bytes != 0) {
        return FL_ENOENT;
    }
    return FL_OK;
}

uint32_t fl_log_sector_pack(const fl_flash_t *flash, const fl_log_sector_t *head, uint8_t *buf) {
    memset(buf, 0xFF, FL_LOG_CHUNK);
    memcpy(buf, sector_magic, sizeof(sector_magic));
    buf[SH_VERSION] = FL_STORE_VERSION;
    buf[SH_PROG] = (uint8_t)log2_of(flash->prog_bytes);
    put16(buf + SH_COUNT, flash->sector_count);
    put32(buf + SH_BYTES, flash->sector_bytes);
    put32(buf + SH_SEQ, head->seq);
    put32(buf + SH_CONT, head->cont);
    put32(buf + SH_CRC, fl_crc32(0, buf, SH_CRC));
    return fl_log_data_start(flash);
}

int fl_log_record_read(const fl_flash_t *flash, uint32_t sector, const fl_log_sector_t *head, uint32_t off,
    fl_log_record_t *out) {
    if (off > flash->sector_bytes || flash->sector_bytes - off < FL_LOG_RECORD_HEADER) {
        return FL_ENOENT;
    }
    uint8_t buf[FL_LOG_RECORD_HEADER];
    int err = read_or_absent(flash, sector * flash->sector_bytes + off, buf, sizeof(buf));
    if (err) {
        return err;
    }
    if (buf[RH_MAGIC] != RECORD_MAGIC || get32(buf + RH_HEAD_CRC) != fl_crc32(0, buf, RH_HEAD_CRC)) {
        return FL_ENOENT;
    }
    fl_store_rec_t *rec = &out->rec;
    memset(rec, 0, sizeof(*rec));
    out->flags = buf[RH_FLAGS];
    rec->type = (uint16_t)get16(buf + RH_TYPE);
    memcpy(rec->uid, buf + RH_UID, FL_STORE_UID_BYTES);
    rec->seq = get32(buf + RH_SEQ);
    rec->len = get32(buf + RH_LEN);
    rec->crc = get32(buf + RH_CRC);
    rec->off = off;
    rec->sector = (uint16_t)sector;
    rec->sector_seq = head->seq;
    if (rec->type == FL_STORE_ANY || rec->seq == 0 || rec->seq == UINT32_MAX || rec->len > FL_LOG_PAYLOAD_MAX) {
        return FL_ENOENT;
    }
    // Either it lies within the sector or it starts one.
    bool starts_sector = off == fl_log_data_start(flash) && head->cont == 0;
    bool fits = fl_log_record_bytes(flash, rec->len) <= flash->sector_bytes - off;
    if (!fits && (!starts_sector || fl_log_record_sectors(flash, rec->len) > flash->sector_count)) {
        return FL_ENOENT;
    }
    return FL_OK;
}

void fl_log_record_pack(const fl_store_rec_t *rec, uint8_t flags, uint8_t *buf) {
    buf[RH_MAGIC] = RECORD_MAGIC;
    buf[RH_FLAGS] = flags;
    put16(buf + RH_TYPE, rec->type);
    memcpy(buf + RH_UID, rec->uid, FL_STORE_UID_BYTES);
    put32(buf + RH_SEQ, rec->seq);
    put32(buf + RH_LEN, rec->len);
    put32(buf + RH_CRC, rec->crc);
    put32(buf + RH_HEAD_CRC, fl_crc32(0, buf, RH_HEAD_CRC));
}

uint32_t fl_log_record_end(const fl_flash_t *flash, const fl_store_rec_t *rec) {
    return rec->off + fl_log_record_bytes(flash, rec->len);
}

int fl_log_find_continuation(const fl_flash_t *flash, uint32_t sector, uint32_t seq, uint32_t *found) {
    for (uint32_t i = 1; i <= flash->sector_count; i++) {
        uint32_t candidate = (sector + i) % flash->sector_count;
        fl_log_sector_t head;
        int err = fl_log_sector_read(flash, candidate, &head);
        if (err == FL_OK && head.seq == seq && head.cont > 0) {
            *found = candidate;
            return FL_OK;
        }
        if (err != FL_OK && err != FL_ENOENT && err != FL_ENOTSUP) {
            return err;
        }
    }
    return FL_ENOENT;
}

// Goes to the start of the data of the sector that follows.
static int next_sector(fl_log_cursor_t *cur) {
    if (cur->seq == UINT32_MAX) {
        return FL_ENOENT;
    }
    int err = fl_log_find_continuation(cur->flash, cur->sector, cur->seq + 1, &cur->sector);
    cur->seq++;
    cur->pos = fl_log_data_start(cur->flash);
    return err;
}

int fl_log_seek(fl_log_cursor_t *cur, const fl_flash_t *flash, const fl_store_rec_t *rec, uint32_t off) {
    if (rec->sector >= flash->sector_count || rec->off >= flash->sector_bytes) {
        return FL_ENOENT;
    }
    fl_log_sector_t head;
    int err = fl_log_sector_read(flash, rec->sector, &head);
    if (err) {
        return err;
    }
    if (head.seq != rec->sector_seq) {
        return FL_ENOENT;
    }
    *cur = (fl_log_cursor_t){.flash = flash, .sector = rec->sector, .seq = head.seq, .pos = rec->off};
    uint32_t left = FL_LOG_RECORD_HEADER + off;
    while (left > flash->sector_bytes - cur->pos) {
        left -= flash->sector_bytes - cur->pos;
        err = next_sector(cur);
        if (err) {
            return err;
        }
    }
    cur->pos += left;
    return FL_OK;
}

int fl_log_next(fl_log_cursor_t *cur, void *buf, uint32_t n) {
    uint8_t *out = buf;
    while (n > 0) {
        int err = FL_OK;
        if (cur->pos == cur->flash->sector_bytes) {
            err = next_sector(cur);
        }
        if (err) {
            return err;
        }
        uint32_t run = cur->flash->sector_bytes - cur->pos;
        run = run < n ? run : n;
        err = read_or_absent(cur->flash, cur->sector * cur->flash->sector_bytes + cur->pos, out, run);
        if (err) {
            return err;
        }
        cur->pos += run;
        out += run;
        n -= run;
    }
    return FL_OK;
}

int fl_log_record_whole(const fl_flash_t *flash, const fl_store_rec_t *rec) {
    fl_log_cursor_t cur;
    int err = fl_log_seek(&cur, flash, rec, 0);
    uint32_t crc = 0;
    for (uint32_t done = 0; done < rec->len && err == FL_OK;) {
        uint8_t chunk[FL_LOG_CHUNK];
        uint32_t n = rec->len - done < sizeof(chunk) ? rec->len - done : (uint32_t)sizeof(chunk);
        err = fl_log_next(&cur, chunk, n);
        crc = err == FL_OK ? fl_crc32(crc, chunk, n) : crc;
        done += n;
    }
    if (err == FL_ENOENT || err == FL_ENOTSUP) {
        return FL_EBADMSG;
    }
    if (err) {
        return err;
    }
    return crc == rec->crc ? FL_OK : FL_EBADMSG;
}
