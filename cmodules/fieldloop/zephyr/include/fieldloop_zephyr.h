// fieldloop on Zephyr: what an application uses beside the core's own headers.
//
// With CONFIG_FIELDLOOP_SERVER_THREAD one thread owns the device server. Everybody else hands it a function:
//
//     static int ask(fl_server_t *s, void *arg) {
//         reading_t *r = arg;
//         return fl_server_predict_f32(s, r->x, r->count, NULL, 0);
//     }
//     int label = fl_zephyr_call(ask, &reading);
#ifndef FIELDLOOP_ZEPHYR_H
#define FIELDLOOP_ZEPHYR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_flash.h"

// ---- a partition of the flash map, for fl_store.h and fl_slot.h (CONFIG_FIELDLOOP_FLASH_AREA)

struct flash_area;

// id: FIXED_PARTITION_ID(label). The sector is the flash's erase page, or several of them where there would be too
// many; the program unit is its write block, or CONFIG_FIELDLOOP_PROG_BYTES if that is more. What is handed out
// lives as long as the firmware.
//   FL_ENOENT   no such partition, or its device is not ready
//   FL_ENOMEM   more than eight partitions
//   FL_ENOTSUP  pages of several sizes, a write block above FL_FLASH_PROG_MAX, or erased bytes that are not 0xFF
int fl_zephyr_flash_open(fl_flash_t *flash, uint8_t id);

// Where the partition's bytes can be read as memory; NULL: nowhere. Knows Zephyr's flash simulator and the flash
// that the devicetree's `chosen` names as zephyr,flash. An application may define its own, for a flash that is mapped
// in another way.
const uint8_t *fl_zephyr_flash_bytes(const struct flash_area *area);

#if defined(CONFIG_FIELDLOOP_SERVER)
#include "fieldloop/fl_server.h"

// ---- the device server's thread (CONFIG_FIELDLOOP_SERVER_THREAD)

typedef int (*fl_zephyr_fn_t)(fl_server_t *s, void *arg);

// Runs fn(server, arg) in the server's thread, between two pieces of what it learns, and returns what fn does.
// Waits meanwhile: not for interrupts. FL_EIO: the server did not start; the log says why.
int fl_zephyr_call(fl_zephyr_fn_t fn, void *arg);

size_t fl_zephyr_stack_size(void);   // of that thread, bytes
size_t fl_zephyr_stack_unused(void); // of them never touched; 0 also where CONFIG_INIT_STACKS is off

// ---- what an application may define better

// A number unlike that of the boot before. The default asks Zephyr's random numbers, if there are any, and the cycle
// counter.
uint32_t fl_zephyr_boot_id(void);

// Executed instructions, for the command `count`. The default cannot count.
bool fl_zephyr_count_begin(void);
uint64_t fl_zephyr_count_end(void);

#endif

#endif
