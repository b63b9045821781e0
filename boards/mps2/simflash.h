// A simulated NOR flash in memory that the host keeps in a file.
//
// The memory is a file of the host, mapped shared into the simulator (PSRAM of the board), so that
// what was written survives even a SIGKILL of QEMU. The bytes of a partition are the flash's content as
// it is, readable in place; only erase and program go through this driver, which enforces the rules:
//
//   - erase works on whole sectors of SIMFLASH_SECTOR bytes and leaves 0xFF
//   - program works on whole program units and only clears bits
//   - no unit is programmed twice between two erases, not even with the same bytes
//
// A violation changes nothing, is counted, and returns -EIO.
//
//   at the start   partitions, one after the other (sizes: fl_layout.h, from boards/roster.toml)
//   after them     the bitmap: a bit for each of their bytes; the first of a unit set: programmed
//   at the end     simflash_header_t, 64 bytes
//
// The bitmap outlives a power cut in a safe order: a program sets a unit's bit after its bytes, an erase
// clears the bits before the bytes, and a unit that is not all 0xFF counts as programmed whatever its
// bit says.
//
// Power cuts. Operations are counted from 1: every simflash_erase() is one, every simflash_program() is
// one whatever its length. simflash_fail_after(n) lets the n-th operation from now complete and then
// stops the machine; simflash_fail_inside(n, seed) stops it within that operation, leaving what `seed`
// decides, the same every time:
//
//   program   the first k units are done (0 <= k < count); of the next, a random subset of the bits
//             that were to become 0 did; the rest is untouched
//   erase     the first k units read 0xFF, the next has a random subset of its bits set to 1, the rest
//             is untouched; for every other seed the order is scattered instead of first to last
//
// Then one line "FIELDLOOP-POWER-CUT ..." is printed and nothing runs any more; the host kills QEMU.
#ifndef FIELDLOOP_MPS2_SIMFLASH_H
#define FIELDLOOP_MPS2_SIMFLASH_H

#include <stdint.h>

#define SIMFLASH_SECTOR (4096u)

typedef struct {
    const char *name;
    uint32_t offset; // from the start of the flash, a multiple of the sector
    uint32_t size;   // bytes, a multiple of the sector
    uint32_t unit;   // program unit, bytes: 1 to 32, a power of two
} simflash_partition_t;

typedef struct {
    uint32_t erases;
    uint32_t programs;
    uint32_t violations;
} simflash_counts_t; // since the machine started

extern const simflash_partition_t simflash_partitions[];
extern const uint32_t simflash_partition_count;

// Make the flash ready; one whose file is new becomes erased. Ends the machine when the file was made for
// another memory map.
void simflash_init(void);

// The content, readable in place.
const uint8_t *simflash_memory(const simflash_partition_t *partition);

// Erase the sector that starts at `offset` of the partition. 0, -EINVAL (no such sector).
int simflash_erase(const simflash_partition_t *partition, uint32_t offset);

// Program `size` bytes. 0, -EINVAL (out of the partition), -EIO (a rule is violated).
int simflash_program(const simflash_partition_t *partition, uint32_t offset,
    const uint8_t *bytes, uint32_t size);

void simflash_fail_after(uint32_t n);                 // 0 disarms
void simflash_fail_inside(uint32_t n, uint32_t seed); // 0 disarms

simflash_counts_t simflash_counts(void);

// 8 bytes that tell one flash file from another; all zero when the host gave none.
const uint8_t *simflash_unique_id(void);

// How many times the machine started with this file.
uint32_t simflash_boots(void);

#endif
