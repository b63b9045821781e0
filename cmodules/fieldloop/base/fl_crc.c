#include "fieldloop/fl_crc.h"

// The classic shift form without a table: 0x1021 has so few bits set that four shifts do a whole byte.
uint16_t fl_crc16(uint16_t crc, const void *p, size_t n) {
    const uint8_t *b = p;
    uint32_t c = crc;
    for (size_t i = 0; i < n; i++) {
        c = ((c >> 8) | (c << 8)) & 0xffffu;
        c ^= b[i];
        c ^= (c & 0xffu) >> 4;
        c ^= (c << 12) & 0xffffu;
        c ^= (c & 0xffu) << 5;
    }
    return (uint16_t)c;
}

uint32_t fl_crc32(uint32_t crc, const void *p, size_t n) {
    // The CRC of each value of four bits.
    static const uint32_t nibble[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
        0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
        0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
    };
    const uint8_t *b = p;
    uint32_t c = ~crc;
    for (size_t i = 0; i < n; i++) {
        c ^= b[i];
        c = (c >> 4) ^ nibble[c & 15u];
        c = (c >> 4) ^ nibble[c & 15u];
    }
    return ~c;
}
