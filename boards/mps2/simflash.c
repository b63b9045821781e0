// Driver of the simulated NOR flash, see simflash.h.
#include <stdbool.h>
#include <string.h>
#include "py/mpconfig.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "fl_layout.h"
#include "simflash.h"

#define MAGIC "FLDFLASH"
#define UNIT_MAX (32u)

// At the end of the file. The host writes `unique_id` when it makes the file; all else is ours.
typedef struct {
    char magic[8]; // written last, so that a cut while formatting formats again
    uint8_t unique_id[8];
    uint32_t layout; // FL_LAYOUT_ID of the firmware that made it
    uint32_t boots;
    uint32_t reserved[10];
} simflash_header_t;
_Static_assert(sizeof(simflash_header_t) == 64, "the header is part of the file's format");

const simflash_partition_t simflash_partitions[] = { FL_LAYOUT_PARTITIONS };
const uint32_t simflash_partition_count = MP_ARRAY_SIZE(simflash_partitions);

#define FLASH ((uint8_t *)FL_LAYOUT_FLASH_ADDRESS)
#define BITMAP (FLASH + FL_LAYOUT_FLASH_SIZE)
// At a place that every layout agrees about.
#define HEADER ((volatile simflash_header_t *)(FLASH + FL_LAYOUT_PSRAM_SIZE - sizeof(simflash_header_t)))

static simflash_counts_t counts;
static uint32_t cut_in; // operations until the power cut, 0: none armed
static bool cut_inside;
static uint32_t cut_seed;

// The bitmap has a bit for every byte: simple, and each partition may have its own unit.
static bool is_marked(uint32_t at) {
    return BITMAP[at / 8] >> (at % 8) & 1;
}

static void mark(uint32_t at) {
    BITMAP[at / 8] |= (uint8_t)(1u << (at % 8));
}

void simflash_init(void) {
    if (memcmp((const char *)HEADER->magic, MAGIC, sizeof(HEADER->magic)) != 0) {
        memset(FLASH, 0xff, FL_LAYOUT_FLASH_SIZE);
        memset(BITMAP, 0, FL_LAYOUT_FLASH_SIZE / 8);
        HEADER->layout = FL_LAYOUT_ID;
        HEADER->boots = 0;
        __asm volatile ("dmb" ::: "memory");
        memcpy((char *)HEADER->magic, MAGIC, sizeof(HEADER->magic));
    } else if (HEADER->layout != FL_LAYOUT_ID) {
        port_die("FIELDLOOP-FAULT the flash file was made for another board or memory map");
    }
    HEADER->boots++;
}

const uint8_t *simflash_memory(const simflash_partition_t *partition) {
    return FLASH + partition->offset;
}

simflash_counts_t simflash_counts(void) {
    return counts;
}

const uint8_t *simflash_unique_id(void) {
    return (const uint8_t *)HEADER->unique_id;
}

uint32_t simflash_boots(void) {
    return HEADER->boots;
}

void simflash_fail_after(uint32_t n) {
    cut_in = n;
    cut_inside = false;
}

void simflash_fail_inside(uint32_t n, uint32_t seed) {
    cut_in = n;
    cut_inside = true;
    cut_seed = seed;
}

// xorshift32 over a mixed seed; every seed, 0 too, starts somewhere else.
static uint32_t draw(void) {
    uint32_t x = cut_seed;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    cut_seed = x;
    return x * 0x9E3779B1u >> 8;
}

static void start_draws(void) {
    cut_seed = cut_seed * 0x85EBCA6Bu + 0x6A09E667u;
    if (cut_seed == 0) {
        cut_seed = 1;
    }
    for (int i = 0; i < 4; i++) {
        draw();
    }
}

static void power_cut(const char *kind, const simflash_partition_t *partition, uint32_t offset) {
    static char line[96];
    char *end = strcpy(line, "FIELDLOOP-POWER-CUT ") + 20;
    end = strcpy(end, cut_inside ? "inside " : "after ") + (cut_inside ? 7 : 6);
    end = strcpy(end, kind) + strlen(kind);
    *end++ = ' ';
    end = strcpy(end, partition->name) + strlen(partition->name);
    *end++ = '+';
    end = port_put_hex(end, offset);
    *end = 0;
    port_power_off(line);
}

// True when this operation is the one to be cut.
static bool is_cut(void) {
    return cut_in > 0 && --cut_in == 0;
}

static bool is_erased(const uint8_t *bytes, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        if (bytes[i] != 0xff) {
            return false;
        }
    }
    return true;
}

// A program that the power cut ends half-way.
static void program_partly(uint8_t *to, const uint8_t *bytes, uint32_t units, uint32_t unit) {
    start_draws();
    uint32_t done = draw() % units * unit;
    memcpy(to, bytes, done);
    for (uint32_t i = done; i < done + unit; i++) {
        to[i] &= (uint8_t)(bytes[i] | (uint8_t)draw());
    }
}

// An erase that the power cut ends half-way.
static void erase_partly(uint8_t *sector, uint32_t unit) {
    bool scattered = cut_seed & 1;
    start_draws();
    uint32_t units = SIMFLASH_SECTOR / unit;
    uint32_t done = draw() % units;
    for (uint32_t u = 0; u < units; u++) {
        if (scattered ? draw() % units < done : u < done) {
            memset(sector + u * unit, 0xff, unit);
        } else if (u == done) {
            for (uint32_t i = 0; i < unit; i++) {
                sector[u * unit + i] |= (uint8_t)draw();
            }
        }
    }
}

int simflash_erase(const simflash_partition_t *partition, uint32_t offset) {
    if (offset % SIMFLASH_SECTOR || offset >= partition->size) {
        return -MP_EINVAL;
    }
    uint32_t at = partition->offset + offset;
    bool cut = is_cut();
    counts.erases++;
    memset(BITMAP + at / 8, 0, SIMFLASH_SECTOR / 8);
    __asm volatile ("dmb" ::: "memory");
    if (cut && cut_inside) {
        erase_partly(FLASH + at, partition->unit);
    } else {
        memset(FLASH + at, 0xff, SIMFLASH_SECTOR);
    }
    if (cut) {
        power_cut("erase", partition, offset);
    }
    return 0;
}

int simflash_program(const simflash_partition_t *partition, uint32_t offset,
    const uint8_t *bytes, uint32_t size) {
    uint32_t unit = partition->unit;
    if (offset > partition->size || size > partition->size - offset) {
        return -MP_EINVAL;
    }
    if (size == 0) {
        return 0;
    }
    uint32_t at = partition->offset + offset;
    bool allowed = offset % unit == 0 && size % unit == 0;
    for (uint32_t i = 0; allowed && i < size; i += unit) {
        allowed = !is_marked(at + i) && is_erased(FLASH + at + i, unit);
    }
    if (!allowed) {
        counts.violations++;
        return -MP_EIO;
    }
    bool cut = is_cut();
    counts.programs++;
    if (cut && cut_inside) {
        program_partly(FLASH + at, bytes, size / unit, unit);
    } else {
        for (uint32_t i = 0; i < size; i += unit) {
            memcpy(FLASH + at + i, bytes + i, unit);
            __asm volatile ("dmb" ::: "memory");
            mark(at + i);
        }
    }
    if (cut) {
        power_cut("program", partition, offset);
    }
    return 0;
}
