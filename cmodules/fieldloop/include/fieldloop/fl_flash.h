// The five-call flash interface: geometry, read, prog, erase, sync.
//
// The store (fl_store.h) and the slot writer (fl_slot.h) know flash only through this struct. An adapter
// fills it once: a MicroPython block device, a Zephyr flash area, a host file. It describes one partition;
// addresses are bytes from its start.
//
//      sector 0              sector 1                          sector_count - 1
//     +--------------------+--------------------+-- ... --+--------------------+
//     |u|u|u|u|u|u|u|u|u|u |u|u|u|u|u|u|u|u|u|u |         |u|u|u|u|u|u|u|u|u|u |
//     +--------------------+--------------------+-- ... --+--------------------+
//      u = program unit, prog_bytes; an erased byte reads 0xFF
//
// What the adapter may rely on: prog() and erase() are called with the alignments below; a unit is
// programmed at most once after the erase of its sector, and only after an erase that this program
// itself saw return 0 since it mounted.
#ifndef FIELDLOOP_FL_FLASH_H
#define FIELDLOOP_FL_FLASH_H

#include <stdint.h>

#include "fieldloop/fl_error.h"

#define FL_FLASH_PROG_MAX 32     // largest program unit, bytes
#define FL_FLASH_SECTOR_MIN 256  // smallest erase sector, bytes
#define FL_FLASH_SECTORS_MAX 256 // most sectors; a larger partition shows several sectors as one

typedef struct {
    void *ctx;             // handed to every call
    uint32_t sector_bytes; // erase unit: >= FL_FLASH_SECTOR_MIN, a multiple of prog_bytes
    uint32_t sector_count; // 1 to FL_FLASH_SECTORS_MAX (the store needs 2); all sectors < 2 GiB together
    uint32_t prog_bytes;   // program unit: 1, 2, 4, 8, 16 or 32

    // Each call returns 0 or a negative fl_error_t, which the store hands on. One value is special:
    // read() answers FL_EBADMSG for bytes that are there but damaged (a failed ECC check, as a torn
    // program leaves it); the store then treats them as damaged instead of giving up.
    int (*read)(void *ctx, uint32_t addr, void *buf, uint32_t n);       // any addr, any n
    int (*prog)(void *ctx, uint32_t addr, const void *buf, uint32_t n); // both multiples of prog_bytes;
                                                                        // within one sector; buf need
                                                                        // not be aligned
    int (*erase)(void *ctx, uint32_t sector);                           // one sector, to 0xFF
    int (*sync)(void *ctx); // returns when all before is on the medium; NULL: prog and erase already do
} fl_flash_t;

// FL_OK, or FL_EINVAL when the geometry breaks a rule above or fewer than `min_sectors` are there.
int fl_flash_check(const fl_flash_t *flash, uint32_t min_sectors);

#endif
