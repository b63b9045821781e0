// Writing a pushed image into a raw flash slot, chunk by chunk.
//
// A slot is a whole partition (fl_flash.h); the image starts at its first byte, so that it can run in
// place. Sectors are erased as the image enters them, whole program units are programmed, once each; the
// tail is padded with 0xFF. fl_slot_begin() erases the first sector at once: whatever image was there
// cannot be opened any more, and a half-written one cannot either, since its own CRC covers all of it.
// After a power cut, begin again: a place that may be half-written is never built upon.
//
//     begin(total)   write(0, ...)   write(4096, ...)   ...   end()   then check: crc, or the image's hash
#ifndef FIELDLOOP_FL_SLOT_H
#define FIELDLOOP_FL_SLOT_H

#include <stdint.h>

#include "fieldloop/fl_flash.h"

typedef struct {
    const fl_flash_t *flash;
    uint32_t total;                  // bytes of the image
    uint32_t next;                   // bytes taken so far: the offset the next chunk must have
    uint32_t open;                   // 1 between begin and end, 0 after an error as well
    uint8_t unit[FL_FLASH_PROG_MAX]; // the bytes of the program unit that is not full yet
} fl_slot_t;

// Starts an image of `total` bytes (1 or more). The flash struct must live until end.
//   FL_EINVAL   the geometry breaks fl_flash.h's rules, or total is 0
//   FL_ENOSPC   total is more than sector_bytes * sector_count; the slot is untouched
int fl_slot_begin(fl_slot_t *slot, const fl_flash_t *flash, uint32_t total);

// Takes the n bytes at `off`, which must be slot->next: chunks come in order, of any size, aligned or
// not. FL_EINVAL for another offset or beyond total (nothing is written, go on at slot->next), or when
// the slot is not open; what the flash answers ends the writing: begin again.
int fl_slot_write(fl_slot_t *slot, uint32_t off, const void *data, uint32_t n);

// Programs the padded tail and syncs. FL_EAGAIN while bytes are missing (the slot stays open).
int fl_slot_end(fl_slot_t *slot);

// CRC-32 (fl_crc32) of the first n bytes as they can be read back now. FL_EINVAL beyond the slot.
int fl_slot_crc(const fl_flash_t *flash, uint32_t n, uint32_t *crc);

#endif
