// The bytes of the store on flash: sectors, records, and the way from one sector to the next.
// Private to store/; docs/SPEC-store.md draws both headers.
#ifndef FIELDLOOP_STORE_LOG_H
#define FIELDLOOP_STORE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_flash.h"
#include "fieldloop/fl_store.h"

#define FL_LOG_SECTOR_HEADER 24 // bytes, then padded to the program unit
#define FL_LOG_RECORD_HEADER 36 // bytes; the payload follows at once
#define FL_LOG_PAYLOAD_MAX (1u << 30)
#define FL_LOG_CHUNK 64 // bytes of stack for reading through flash; at least FL_FLASH_PROG_MAX

#define FL_LOG_CARRIED 0x01 // record flag: a copy that belongs to the first original behind it

typedef struct {
    uint32_t seq;  // 1, 2, 3, ... over all sectors ever opened
    uint32_t cont; // bytes of this sector that go on with a record begun in sector seq - 1
} fl_log_sector_t;

typedef struct {
    fl_store_rec_t rec;
    uint8_t flags;
} fl_log_record_t;

// A place in a payload, moved on by fl_log_next().
typedef struct {
    const fl_flash_t *flash;
    uint32_t sector, seq, pos; // pos: byte of the sector
} fl_log_cursor_t;

static inline uint32_t fl_log_round_up(uint32_t n, uint32_t unit) {
    return (n + unit - 1) / unit * unit;
}

// First byte behind the sector header, and the bytes a sector offers to records.
static inline uint32_t fl_log_data_start(const fl_flash_t *flash) {
    return fl_log_round_up(FL_LOG_SECTOR_HEADER, flash->prog_bytes);
}

static inline uint32_t fl_log_data_bytes(const fl_flash_t *flash) {
    return flash->sector_bytes - fl_log_data_start(flash);
}

// Bytes of flash a record of `len` payload bytes takes, and the sectors if it starts one.
static inline uint32_t fl_log_record_bytes(const fl_flash_t *flash, uint32_t len) {
    return fl_log_round_up(FL_LOG_RECORD_HEADER + len, flash->prog_bytes);
}

static inline uint32_t fl_log_record_sectors(const fl_flash_t *flash, uint32_t len) {
    uint32_t data = fl_log_data_bytes(flash);
    return (fl_log_record_bytes(flash, len) + data - 1) / data;
}

// FL_OK; FL_ENOENT: no sector of ours; FL_ENOTSUP: ours, of another version or geometry; or what the
// flash answered.
int fl_log_sector_read(const fl_flash_t *flash, uint32_t sector, fl_log_sector_t *out);

// Fills `buf` (FL_LOG_CHUNK bytes) with a padded sector header; returns the bytes to program.
uint32_t fl_log_sector_pack(const fl_flash_t *flash, const fl_log_sector_t *head, uint8_t *buf);

// The record that starts at byte `off` of a sector whose header is `head`. FL_ENOENT: none there.
int fl_log_record_read(const fl_flash_t *flash, uint32_t sector, const fl_log_sector_t *head, uint32_t off,
    fl_log_record_t *out);

// Writes the FL_LOG_RECORD_HEADER bytes of a record header to `buf`.
void fl_log_record_pack(const fl_store_rec_t *rec, uint8_t flags, uint8_t *buf);

// Where the next record header of the sector may be; sector_bytes or more when there is none.
uint32_t fl_log_record_end(const fl_flash_t *flash, const fl_store_rec_t *rec);

// FL_OK when the whole payload is there and matches its CRC, FL_EBADMSG when not.
int fl_log_record_whole(const fl_flash_t *flash, const fl_store_rec_t *rec);

// Puts the cursor on byte `off` (0 to len) of the payload. FL_ENOENT: the record is gone.
int fl_log_seek(fl_log_cursor_t *cur, const fl_flash_t *flash, const fl_store_rec_t *rec, uint32_t off);

// Reads n payload bytes and moves on. The caller stays within len.
int fl_log_next(fl_log_cursor_t *cur, void *buf, uint32_t n);

// Finds the sector numbered `seq` that goes on with the record of the sector before it, looking first
// behind `sector`. FL_ENOENT when there is none: a sector of that number which begins with a record of
// its own was opened after the write of this one was torn, and its bytes are no part of it.
int fl_log_find_continuation(const fl_flash_t *flash, uint32_t sector, uint32_t seq, uint32_t *found);

// The table of live records: the key's slot, NULL when it is not in use; the slot a new key gets, which
// is a free one or that of the key least recently written.
fl_store_key_t *fl_store_key(fl_store_t *st, uint16_t type, const uint8_t *uid);
fl_store_key_t *fl_store_victim(fl_store_t *st);

#endif
