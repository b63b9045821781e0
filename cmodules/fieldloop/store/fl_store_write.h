// Writing to the log: opening sectors, streaming a record into them. Private to store/.
#ifndef FIELDLOOP_STORE_WRITE_H
#define FIELDLOOP_STORE_WRITE_H

#include "fl_log.h"

// A set of sectors.
typedef struct {
    uint32_t word[FL_FLASH_SECTORS_MAX / 32];
} fl_sectors_t;

static inline bool fl_sectors_has(const fl_sectors_t *set, uint32_t sector) {
    return (set->word[sector / 32] >> (sector % 32) & 1) != 0;
}

static inline void fl_sectors_add(fl_sectors_t *set, uint32_t sector) {
    set->word[sector / 32] |= (uint32_t)1 << (sector % 32);
}

// The first sector behind `sector`, around the ring, that is not in `taken`; sector_count when all are.
uint32_t fl_sectors_next(const fl_sectors_t *taken, uint32_t sector, uint32_t sector_count);

// The payload of a record to write: pieces in memory, or (pieces NULL) the payload of another record.
typedef struct {
    const fl_store_piece_t *pieces;
    size_t n_pieces;
    const fl_store_rec_t *from;
} fl_payload_t;

// Erases and heads the next free sector of the ring, adds it to `taken`, and leaves it open for records.
// `cont`: the bytes of it that go on with the record being written. FL_ENOSPC when none is free.
int fl_store_open_sector(fl_store_t *st, fl_sectors_t *taken, uint32_t cont);

// Streams one record to the open place, opening free sectors as it goes on; fills the place of `rec`
// (seq, type, uid, len and crc are the caller's) and reads it back. After any error the store has to be mounted again.
int fl_store_write_record(fl_store_t *st, fl_sectors_t *taken, fl_store_rec_t *rec, uint8_t flags,
    const fl_payload_t *payload);

#endif
