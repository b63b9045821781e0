// The power-safe store: append-only records that are there whole, or not at all.
//
// What was learned is a record: a type, the 16-byte uid of the model image it belongs to, and a payload
// of any length. fl_store_append() writes a new record beside the old ones; a power cut at any
// instruction, inside any flash operation, leaves the old newest record or the new one, whole. The bytes
// and the proof are in docs/SPEC-store.md.
//
//     key = (type, uid)       a key keeps its two newest records: nth 0 = newest, 1 = the one before
//
// Guarantees
//   - The two newest whole records of every key in use survive, also while a third is being written.
//   - A key is in use when its uid was on the list given to fl_store_mount() (no list: every uid) or it
//     was appended to since, and it is one of the FL_STORE_KEYS most recently written.
//   - An append that is accepted leaves room for the next one of the same size, reboots and power cuts
//     between them included. One that would not is refused with FL_ENOSPC before anything is erased.
//   - Mounting writes nothing. A sector is used only after this mount has erased it itself, so that a
//     half-erased or half-programmed place is never built upon, whatever it reads.
//
// Space rule. A record takes R(n) = 36 + n bytes, rounded up to the program unit; a sector offers
// U = sector_bytes - 24 (rounded up to the program unit); K(n) = ceil(R(n) / U) sectors. With n the
// longest payload of each key in use, an append is accepted when one of these holds:
//     A)  sum over keys of 2 K(n)  +  the largest K(n)  <=  sector_count
//     B)  sum over keys of 2 R(n)                       <=  U           (any sector_count >= 2)
// (A) never moves anything; (B) carries the live records along into each new sector. For one key in 16
// sectors of 4 KiB with 8-byte units, (A) allows payloads up to 20 324 bytes.
//
// Memory: fl_store_t is all there is (576 bytes on 32-bit parts), and less than 1 KiB of stack. The flash
// struct must live as long as the store. Not re-entrant for one fl_store_t; no global state.
#ifndef FIELDLOOP_FL_STORE_H
#define FIELDLOOP_FL_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_flash.h"

#define FL_STORE_VERSION 1 // of the bytes on flash
#define FL_STORE_UID_BYTES 16
#ifndef FL_STORE_KEYS
#define FL_STORE_KEYS 8 // keys that can be in use at once; 68 bytes of fl_store_t each
#endif

#define FL_STORE_ANY 0 // fl_store_find(): a record of any type

// A record's address card, filled by find() and each(). It stays good until the store is mounted or
// formatted again, or until two more records of its key were appended; after that reads give FL_ENOENT.
typedef struct {
    uint32_t seq;        // position in the store's history: a larger one is newer, across all keys
    uint32_t len;        // payload bytes
    uint32_t crc;        // CRC-32 of the payload (fl_crc32)
    uint32_t off;        // where it lies: byte of the sector,
    uint32_t sector_seq; // the sector's own sequence number,
    uint16_t sector;     // and the sector
    uint16_t type;
    uint8_t uid[FL_STORE_UID_BYTES];
} fl_store_rec_t;

// A piece of a payload in memory; a record is written from several, without a copy.
typedef struct {
    const void *data;
    uint32_t len; // bytes; 0 is allowed, data may then be NULL
} fl_store_piece_t;

// One live record in the table of fl_store_t.
typedef struct {
    uint32_t seq, len, crc, off, sector_seq;
    uint16_t sector;
    uint16_t settled; // 0: a copy carried along by an append that did not end; an original is preferred
} fl_store_live_t;

typedef struct {
    uint16_t type;
    uint16_t count; // live records: 0 (slot unused), 1 or 2
    uint8_t uid[FL_STORE_UID_BYTES];
    fl_store_live_t live[2]; // newest first
} fl_store_key_t;

typedef struct {
    const fl_flash_t *flash;
    fl_store_key_t keys[FL_STORE_KEYS];
    uint32_t next_seq;    // of the next record; 2^32 - 1: used up
    uint32_t sector_seq;  // of the sector opened last
    uint32_t last_sector; // the sector opened last; the ring goes on behind it
    uint32_t open_off;    // first free byte of last_sector, 0: nothing may be added to it
    uint32_t needed;      // set by an append refused with FL_ENOSPC: the bytes of flash it would take,
    uint32_t available;   // and the bytes of flash there are
    uint32_t failed;      // 1 after an error of the flash, in mount and format too: mount again
} fl_store_t;

// Reads the headers (and checks the payload CRCs of the candidates); writes nothing. `uids` lists the
// n_uids models whose records are to be kept; NULL: all. Records of other models stay until their space
// is needed. A blank or foreign flash is an empty store. The list is not kept. After an error the table may
// lack records; find() tells what it has, and every append gives FL_EIO until a mount succeeds.
//   FL_EINVAL   the geometry breaks fl_flash.h's rules, or fewer than 2 sectors
//   FL_ENOTSUP  a store of another version or geometry lies there; fl_store_format() replaces it
int fl_store_mount(fl_store_t *st, const fl_flash_t *flash, const uint8_t (*uids)[FL_STORE_UID_BYTES],
    size_t n_uids);

// Erases every sector, roughly the oldest first, and leaves an empty, mounted store. A power cut inside
// leaves some of the records: format again. (A factory reset is a record of the caller's, not this.)
int fl_store_format(fl_store_t *st, const fl_flash_t *flash);

// Writes a new newest record of key (type, uid) from n_pieces in a row. type is 1 to 0xFFFE. Returns
// when the record is whole on the medium and was read back.
//   FL_ENOSPC   the space rule does not hold: st->needed, st->available; nothing was changed
//   FL_EINVAL   type out of range, or a payload beyond 1 GiB
//   FL_EBADMSG  the numbers of records or sectors are used up (2^32): format
//   FL_EIO ...  the flash failed or read back wrong. The old records are as they were, but whether the new
//               one is whole only a mount can tell: until then every append gives FL_EIO
int fl_store_append(fl_store_t *st, uint16_t type, const uint8_t uid[FL_STORE_UID_BYTES],
    const fl_store_piece_t *pieces, size_t n_pieces);

// The nth newest record of the key: 0 = newest, 1 = the one before. type FL_STORE_ANY: over all types of
// this uid, ordered by seq. FL_ENOENT when there is none.
int fl_store_find(const fl_store_t *st, uint16_t type, const uint8_t uid[FL_STORE_UID_BYTES], unsigned nth,
    fl_store_rec_t *rec);

// Every live record in turn, index 0, 1, 2, ... in no particular order; FL_ENOENT behind the last.
int fl_store_each(const fl_store_t *st, unsigned index, fl_store_rec_t *rec);

// n bytes of the payload from byte off. FL_EINVAL when off + n > rec->len; FL_ENOENT when the record is
// not there any more.
int fl_store_read(const fl_store_t *st, const fl_store_rec_t *rec, uint32_t off, void *buf, uint32_t n);

// Reads the whole payload and compares its CRC. FL_EBADMSG when it does not match.
int fl_store_verify(const fl_store_t *st, const fl_store_rec_t *rec);

// Appends the payload of an older live record again, as the newest of its key ("undo" is a copy of
// nth 1). Streams from flash to flash; errors as fl_store_append(), FL_ENOENT for a record that is not
// live any more.
int fl_store_copy(fl_store_t *st, const fl_store_rec_t *rec);

#endif
