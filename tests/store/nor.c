#include "nor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLEAN, PROGRAMMED, TORN };

uint32_t nor_random(uint32_t *state) {
    uint32_t x = *state += 0x9E3779B9u;
    x = (x ^ x >> 16) * 0x85EBCA6Bu;
    x = (x ^ x >> 13) * 0xC2B2AE35u;
    return x ^ x >> 16;
}

static void rule(bool kept, const char *what, uint32_t addr) {
    if (!kept) {
        fprintf(stderr, "NOR rule broken: %s at byte %u\n", what, (unsigned)addr);
        exit(2);
    }
}

static int nor_read(void *ctx, uint32_t addr, void *buf, uint32_t n) {
    nor_t *nor = ctx;
    if (nor->off) {
        return FL_EIO;
    }
    uint32_t size = nor->flash.sector_bytes * nor->flash.sector_count;
    rule(addr <= size && n <= size - addr, "a read stays inside", addr);
    for (uint32_t a = addr; nor->ecc && a < addr + n; a++) {
        if (nor->unit[a / nor->flash.prog_bytes] == TORN) {
            return FL_EBADMSG;
        }
    }
    memcpy(buf, nor->bytes + addr, n);
    return FL_OK;
}

// True when this operation is the one that loses power or fails.
static bool is_cut(nor_t *nor) {
    bool cut = nor->ops++ == nor->cut_at;
    nor->hit = nor->hit || cut;
    return cut;
}

static int nor_prog(void *ctx, uint32_t addr, const void *buf, uint32_t n) {
    nor_t *nor = ctx;
    const uint8_t *in = buf;
    uint32_t unit = nor->flash.prog_bytes;
    if (nor->off) {
        return FL_EIO;
    }
    rule(addr % unit == 0 && n % unit == 0 && n > 0, "whole units", addr);
    rule(addr / nor->flash.sector_bytes == (addr + n - 1) / nor->flash.sector_bytes, "one sector", addr);
    for (uint32_t i = 0; i < n; i += unit) {
        rule(nor->unit[(addr + i) / unit] == CLEAN, "a unit is programmed once after an erase", addr + i);
    }
    bool cut = is_cut(nor);
    bool inside = cut && nor->cut != CUT_AFTER;
    uint32_t style = inside ? nor_random(&nor->seed) % 5 : 0;
    uint32_t late = inside ? nor_random(&nor->seed) % (n * 8) : 0;
    uint32_t whole_units = inside ? nor_random(&nor->seed) % (n / unit) : 0;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t wanted = in[i];
        if (inside && style == 0) {
            wanted = 0xFF; // begun, nothing to be seen
        } else if (inside && style == 1 && i / unit >= whole_units) {
            wanted = i / unit == whole_units ? (uint8_t)(wanted | nor_random(&nor->seed)) : 0xFF;
        } else if (inside && style == 2) {
            wanted |= (uint8_t)nor_random(&nor->seed);
        } else if (inside && style == 4 && i == late / 8) {
            wanted |= (uint8_t)(1u << late % 8); // all but one bit
        } // style 3: every bit made it, only the end of the pulse did not
        nor->bytes[addr + i] &= wanted;
        nor->unit[(addr + i) / unit] = inside ? TORN : PROGRAMMED;
    }
    nor->off = cut && nor->cut != FAIL_INSIDE;
    return cut ? FL_EIO : FL_OK;
}

static int nor_erase(void *ctx, uint32_t sector) {
    nor_t *nor = ctx;
    uint32_t size = nor->flash.sector_bytes;
    uint32_t units = size / nor->flash.prog_bytes;
    if (nor->off) {
        return FL_EIO;
    }
    rule(sector < nor->flash.sector_count, "a sector that exists", sector);
    bool cut = is_cut(nor);
    bool inside = cut && nor->cut != CUT_AFTER;
    uint32_t style = inside ? nor_random(&nor->seed) % 5 : 1;
    uint32_t prefix = inside ? nor_random(&nor->seed) % size : 0;
    uint8_t *p = nor->bytes + sector * size;
    for (uint32_t i = 0; i < size; i++) {
        if (style == 1 || (style == 3 && i < prefix)) {
            p[i] = 0xFF;
        } else if (style == 2) {
            p[i] |= (uint8_t)nor_random(&nor->seed);
        } else if (style == 4) {
            p[i] = (uint8_t)nor_random(&nor->seed); // many parts program to 0 before they erase
        } // style 0: begun, nothing to be seen
    }
    memset(nor->unit + sector * units, inside ? TORN : CLEAN, units);
    nor->wear[sector]++;
    nor->off = cut && nor->cut != FAIL_INSIDE;
    return cut ? FL_EIO : FL_OK;
}

static int nor_sync(void *ctx) {
    return ((nor_t *)ctx)->off ? FL_EIO : FL_OK;
}

void nor_open(nor_t *nor, uint32_t sector_bytes, uint32_t sector_count, uint32_t prog_bytes, bool ecc) {
    uint32_t size = sector_bytes * sector_count;
    *nor = (nor_t){.cut_at = UINT32_MAX, .ecc = ecc};
    nor->bytes = malloc(size);
    nor->unit = malloc(size / prog_bytes);
    nor->wear = calloc(sector_count, sizeof(*nor->wear));
    if (nor->bytes == NULL || nor->unit == NULL || nor->wear == NULL) {
        exit(3);
    }
    // A flash that nobody has erased yet: what it reads is not to be trusted.
    memset(nor->bytes, 0xFF, size);
    memset(nor->unit, TORN, size / prog_bytes);
    nor->flash = (fl_flash_t){nor, sector_bytes, sector_count, prog_bytes, nor_read, nor_prog, nor_erase, nor_sync};
}

void nor_close(nor_t *nor) {
    free(nor->bytes);
    free(nor->unit);
    free(nor->wear);
}

void nor_power_on(nor_t *nor) {
    nor->off = false;
    nor->hit = false;
    nor->cut_at = UINT32_MAX;
}
