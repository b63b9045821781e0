#include "fieldloop/fl_flash.h"

#include <stdbool.h>
#include <stddef.h>

int fl_flash_check(const fl_flash_t *flash, uint32_t min_sectors) {
    uint32_t prog = flash->prog_bytes;
    bool prog_ok = prog != 0 && prog <= FL_FLASH_PROG_MAX && (prog & (prog - 1)) == 0;
    if (!prog_ok || flash->sector_bytes < FL_FLASH_SECTOR_MIN || flash->sector_bytes % prog != 0) {
        return FL_EINVAL;
    }
    if (flash->sector_count < min_sectors || flash->sector_count > FL_FLASH_SECTORS_MAX) {
        return FL_EINVAL;
    }
    // Every address, and every sum of an address and a length, then fits an int32_t.
    if (flash->sector_count > (uint32_t)INT32_MAX / flash->sector_bytes) {
        return FL_EINVAL;
    }
    if (flash->read == NULL || flash->prog == NULL || flash->erase == NULL) {
        return FL_EINVAL;
    }
    return FL_OK;
}
