#include "fieldloop/fl_slot.h"

#include <string.h>

#include "fieldloop/fl_crc.h"

#define CHUNK 64 // bytes of stack to read through

static int close_with(fl_slot_t *slot, int err) {
    slot->open = 0;
    return err;
}

// Programs n bytes, whole units, at addr; erases each sector it enters.
static int program(const fl_flash_t *flash, uint32_t addr, const uint8_t *data, uint32_t n) {
    while (n > 0) {
        uint32_t inside = addr % flash->sector_bytes;
        int err = FL_OK;
        if (inside == 0 && addr > 0) { // sector 0 was erased by begin
            err = flash->erase(flash->ctx, addr / flash->sector_bytes);
        }
        if (err) {
            return err;
        }
        uint32_t run = flash->sector_bytes - inside;
        run = run < n ? run : n;
        err = flash->prog(flash->ctx, addr, data, run);
        if (err) {
            return err;
        }
        addr += run;
        data += run;
        n -= run;
    }
    return FL_OK;
}

int fl_slot_begin(fl_slot_t *slot, const fl_flash_t *flash, uint32_t total) {
    memset(slot, 0, sizeof(*slot));
    int err = fl_flash_check(flash, 1);
    if (err) {
        return err;
    }
    if (total == 0) {
        return FL_EINVAL;
    }
    if (total > flash->sector_bytes * flash->sector_count) {
        return FL_ENOSPC;
    }
    err = flash->erase(flash->ctx, 0);
    if (err) {
        return err;
    }
    *slot = (fl_slot_t){.flash = flash, .total = total, .open = 1};
    return FL_OK;
}

int fl_slot_write(fl_slot_t *slot, uint32_t off, const void *data, uint32_t n) {
    if (!slot->open || off != slot->next || n > slot->total - slot->next) {
        return FL_EINVAL;
    }
    const fl_flash_t *flash = slot->flash;
    const uint8_t *in = data;
    uint32_t unit = flash->prog_bytes;
    while (n > 0) {
        uint32_t fill = slot->next % unit;
        uint32_t take = n / unit * unit;
        int err = FL_OK;
        if (fill == 0 && take > 0) {
            err = program(flash, slot->next, in, take);
        } else {
            take = unit - fill < n ? unit - fill : n;
            memcpy(slot->unit + fill, in, take);
            if (fill + take == unit) {
                err = program(flash, slot->next - fill, slot->unit, unit);
            }
        }
        if (err) {
            return close_with(slot, err);
        }
        slot->next += take;
        in += take;
        n -= take;
    }
    return FL_OK;
}

int fl_slot_end(fl_slot_t *slot) {
    if (!slot->open) {
        return FL_EINVAL;
    }
    if (slot->next < slot->total) {
        return FL_EAGAIN;
    }
    const fl_flash_t *flash = slot->flash;
    uint32_t fill = slot->next % flash->prog_bytes;
    int err = FL_OK;
    if (fill > 0) {
        memset(slot->unit + fill, 0xFF, flash->prog_bytes - fill);
        err = program(flash, slot->next - fill, slot->unit, flash->prog_bytes);
    }
    if (err == FL_OK && flash->sync != NULL) {
        err = flash->sync(flash->ctx);
    }
    return close_with(slot, err);
}

int fl_slot_crc(const fl_flash_t *flash, uint32_t n, uint32_t *crc) {
    int err = fl_flash_check(flash, 1);
    if (err) {
        return err;
    }
    if (n > flash->sector_bytes * flash->sector_count) {
        return FL_EINVAL;
    }
    *crc = 0;
    for (uint32_t done = 0; done < n;) {
        uint8_t chunk[CHUNK];
        uint32_t run = n - done < CHUNK ? n - done : CHUNK;
        err = flash->read(flash->ctx, done, chunk, run);
        if (err) {
            return err;
        }
        *crc = fl_crc32(*crc, chunk, run);
        done += run;
    }
    return FL_OK;
}
