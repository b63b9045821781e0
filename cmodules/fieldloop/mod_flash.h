// A MicroPython block device as the core's flash (fl_flash.h): what Store and Slot stand on.
//
// The device speaks the extended block protocol: readblocks and writeblocks with an offset, ioctl 4 (block
// count), 5 (block size), 6 (erase a block), 3 (sync). Program unit: its attribute `prog_size`, or 32.
// A device whose smallest write is longer (rp2.Flash: 256) is served by padding with 0xFF, which leaves
// the neighbours on NOR flash as they are. A device of more than FL_FLASH_SECTORS_MAX blocks shows
// several as one sector.
#ifndef FIELDLOOP_MOD_FLASH_H
#define FIELDLOOP_MOD_FLASH_H

#include "extmod/vfs.h"
#include "py/obj.h"

#include "fieldloop/fl_flash.h"

typedef struct {
    fl_flash_t flash; // ctx is this struct
    mp_vfs_blockdev_t device;
    mp_obj_t object;
    mp_obj_t raised;      // what the device raised in the last call; MP_OBJ_NULL: nothing
    uint32_t blocks_each; // blocks in a sector
    uint32_t page_bytes;  // the device's smallest write
    uint8_t *page;        // room for one, where it is longer than the program unit
} fl_mp_flash_t;

// prog_bytes 0: ask the device. Raises ValueError or TypeError for a device that cannot be used.
void fl_mp_flash_init(fl_mp_flash_t *self, mp_obj_t device, mp_int_t prog_bytes);

// After a negative result of the core: raises what the device raised, if it was that.
void fl_mp_flash_reraise(fl_mp_flash_t *self);

#endif
