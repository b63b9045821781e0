// vfs.rom_ioctl() for Zephyr: a ROMFS in the partition with the node label romfs_partition of a flash that lies in
// memory. It is read in place, models in it are executed in place, and only a programmer writes it.
#include "py/mperrno.h"
#include "py/runtime.h"

#if MICROPY_VFS_ROM

#include "extmod/vfs.h"
#include "py/objarray.h"

#define PARTITION DT_NODELABEL(romfs_partition)

mp_obj_t mp_vfs_rom_ioctl(size_t n_args, const mp_obj_t *args) {
    switch (mp_obj_get_int(args[0])) {
        case MP_VFS_ROM_IOCTL_GET_NUMBER_OF_SEGMENTS:
            return MP_OBJ_NEW_SMALL_INT(1);
        case MP_VFS_ROM_IOCTL_GET_SEGMENT:
            if (n_args == 2 && mp_obj_get_int(args[1]) == 0) {
                uintptr_t address = DT_REG_ADDR(DT_MEM_FROM_FIXED_PARTITION(PARTITION)) + DT_REG_ADDR(PARTITION);
                return mp_obj_new_memoryview('B', DT_REG_SIZE(PARTITION), (void *)address);
            }
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
        default:
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
    }
}

#endif
