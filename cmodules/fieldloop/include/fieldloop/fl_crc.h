// Checksums of the link, the store and the model image.
//
// Both may be computed in pieces: pass the result of the first piece as `crc` of the next, and 0 to
// begin. `p` may be NULL when `n` is 0.
#ifndef FIELDLOOP_FL_CRC_H
#define FIELDLOOP_FL_CRC_H

#include <stddef.h>
#include <stdint.h>

// CRC-16/XMODEM (polynomial 0x1021, not reflected, start 0): the check of a console frame.
// No table. fl_crc16(0, "123456789", 9) == 0x31C3.
uint16_t fl_crc16(uint16_t crc, const void *p, size_t n);

// CRC-32 as in zlib, PNG and Ethernet (reflected 0xEDB88320, start and end inverted inside).
// A table of 16 words (64 bytes of flash), two look-ups a byte.
// fl_crc32(0, "123456789", 9) == 0xCBF43926 == Python's zlib.crc32(b"123456789").
uint32_t fl_crc32(uint32_t crc, const void *p, size_t n);

#endif
