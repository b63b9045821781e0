// A NOR flash in memory, stricter than any real one, that can lose power.
//
// A unit may be programmed only when it is known to be erased: after an erase that was torn, or a program
// that was torn, nothing may be programmed there until the whole sector was erased again, even if it
// happens to read 0xFF. Breaking a rule ends the process.
#ifndef TESTS_STORE_NOR_H
#define TESTS_STORE_NOR_H

#include <stdbool.h>
#include <stdint.h>

#include "fieldloop/fl_flash.h"

// Power is lost after an operation, or inside it; or the operation fails inside and power stays.
typedef enum { CUT_AFTER, CUT_INSIDE, FAIL_INSIDE } nor_cut_t;

typedef struct {
    fl_flash_t flash;
    uint8_t *bytes;
    uint8_t *unit;   // one state a program unit: clean, programmed, torn
    uint32_t *wear;  // erases of each sector
    uint32_t ops;    // programs and erases so far
    uint32_t cut_at; // the operation that loses power or fails; UINT32_MAX: none
    nor_cut_t cut;
    uint32_t seed;
    bool off; // power is gone: every call fails
    bool hit; // the operation has come
    bool ecc; // torn units answer FL_EBADMSG
} nor_t;

void nor_open(nor_t *nor, uint32_t sector_bytes, uint32_t sector_count, uint32_t prog_bytes, bool ecc);
void nor_close(nor_t *nor);
void nor_power_on(nor_t *nor); // after a cut; no further cut is planned

uint32_t nor_random(uint32_t *state);

#endif
