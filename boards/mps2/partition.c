// simboard.Partition(name): a block device of MicroPython's extended protocol, and a read-only buffer.
//
//   readblocks(block, buffer[, offset])
//   writeblocks(block, buffer)          erases the blocks first
//   writeblocks(block, buffer, offset)  programs only; the caller erased before, by ioctl(6, block)
//   ioctl(op, arg)                      3 sync, 4 block count, 5 block size, 6 erase a block
//   memoryview(partition)               its content in place: 16-byte aligned, read-only, no copy
//   name size sector_size prog_size address
//
// OSError(EINVAL): out of the partition. OSError(EIO): against the rules of NOR flash (simflash.h).
#include <string.h>
#include "py/mperrno.h"
#include "py/runtime.h"
#include "extmod/vfs.h"
#include "partition.h"

typedef struct {
    mp_obj_base_t base;
    const simflash_partition_t *partition;
} partition_obj_t;

mp_obj_t partition_find(const char *name) {
    for (uint32_t i = 0; i < simflash_partition_count; i++) {
        if (strcmp(simflash_partitions[i].name, name) == 0) {
            partition_obj_t *self = mp_obj_malloc(partition_obj_t, &partition_type);
            self->partition = &simflash_partitions[i];
            return MP_OBJ_FROM_PTR(self);
        }
    }
    mp_raise_msg_varg(&mp_type_ValueError,
        MP_ERROR_TEXT("no partition '%s': see simboard.partitions()"), name);
}

static mp_obj_t partition_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw,
    const mp_obj_t *args) {
    (void)type;
    mp_arg_check_num(n_args, n_kw, 1, 1, false);
    return partition_find(mp_obj_str_get_str(args[0]));
}

static void partition_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    (void)kind;
    const simflash_partition_t *p = ((partition_obj_t *)MP_OBJ_TO_PTR(self_in))->partition;
    mp_printf(print, "Partition('%s', size=%u, sector_size=%u, prog_size=%u, address=0x%08x)", p->name,
        (unsigned)p->size, (unsigned)SIMFLASH_SECTOR, (unsigned)p->unit, (unsigned)(uintptr_t)simflash_memory(p));
}

static void partition_attr(mp_obj_t self_in, qstr attribute, mp_obj_t *dest) {
    const simflash_partition_t *p = ((partition_obj_t *)MP_OBJ_TO_PTR(self_in))->partition;
    if (dest[0] != MP_OBJ_NULL) {
        return; // nothing can be set
    }
    if (attribute == MP_QSTR_name) {
        dest[0] = mp_obj_new_str_from_cstr(p->name);
    } else if (attribute == MP_QSTR_size) {
        dest[0] = mp_obj_new_int_from_uint(p->size);
    } else if (attribute == MP_QSTR_sector_size) {
        dest[0] = MP_OBJ_NEW_SMALL_INT(SIMFLASH_SECTOR);
    } else if (attribute == MP_QSTR_prog_size) {
        dest[0] = mp_obj_new_int_from_uint(p->unit);
    } else if (attribute == MP_QSTR_address) {
        dest[0] = mp_obj_new_int_from_uint((uintptr_t)simflash_memory(p));
    } else {
        dest[1] = MP_OBJ_SENTINEL; // look in the locals table
    }
}

static mp_int_t partition_get_buffer(mp_obj_t self_in, mp_buffer_info_t *info, mp_uint_t flags) {
    const simflash_partition_t *p = ((partition_obj_t *)MP_OBJ_TO_PTR(self_in))->partition;
    if (flags & MP_BUFFER_WRITE) {
        return 1;
    }
    info->buf = (void *)simflash_memory(p);
    info->len = p->size;
    info->typecode = 'B';
    return 0;
}

static void check(int result) {
    if (result < 0) {
        mp_raise_OSError(-result);
    }
}

// The byte offset that a block number and an offset mean; at most the partition's size.
static uint32_t position(const simflash_partition_t *p, mp_obj_t block_in, mp_int_t offset) {
    mp_int_t block = mp_obj_get_int(block_in);
    mp_int_t blocks = (mp_int_t)(p->size / SIMFLASH_SECTOR);
    if (block < 0 || block > blocks || offset < 0 || offset > (mp_int_t)p->size) {
        mp_raise_OSError(MP_EINVAL);
    }
    uint32_t at = (uint32_t)block * SIMFLASH_SECTOR + (uint32_t)offset;
    if (at > p->size) {
        mp_raise_OSError(MP_EINVAL);
    }
    return at;
}

static mp_obj_t partition_readblocks(size_t n_args, const mp_obj_t *args) {
    const simflash_partition_t *p = ((partition_obj_t *)MP_OBJ_TO_PTR(args[0]))->partition;
    uint32_t at = position(p, args[1], n_args == 4 ? mp_obj_get_int(args[3]) : 0);
    mp_buffer_info_t info;
    mp_get_buffer_raise(args[2], &info, MP_BUFFER_WRITE);
    if (info.len > p->size - at) {
        mp_raise_OSError(MP_EINVAL);
    }
    memcpy(info.buf, simflash_memory(p) + at, info.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(partition_readblocks_obj, 3, 4, partition_readblocks);

static mp_obj_t partition_writeblocks(size_t n_args, const mp_obj_t *args) {
    const simflash_partition_t *p = ((partition_obj_t *)MP_OBJ_TO_PTR(args[0]))->partition;
    uint32_t at = position(p, args[1], n_args == 4 ? mp_obj_get_int(args[3]) : 0);
    mp_buffer_info_t info;
    mp_get_buffer_raise(args[2], &info, MP_BUFFER_READ);
    if (n_args == 3) {
        if (info.len > p->size - at || info.len % SIMFLASH_SECTOR) {
            mp_raise_OSError(MP_EINVAL);
        }
        for (uint32_t i = 0; i < info.len; i += SIMFLASH_SECTOR) {
            check(simflash_erase(p, at + i));
        }
    }
    check(simflash_program(p, at, info.buf, info.len));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(partition_writeblocks_obj, 3, 4, partition_writeblocks);

static mp_obj_t partition_ioctl(mp_obj_t self_in, mp_obj_t op_in, mp_obj_t arg_in) {
    const simflash_partition_t *p = ((partition_obj_t *)MP_OBJ_TO_PTR(self_in))->partition;
    switch (mp_obj_get_int(op_in)) {
        case MP_BLOCKDEV_IOCTL_INIT:
        case MP_BLOCKDEV_IOCTL_DEINIT:
        case MP_BLOCKDEV_IOCTL_SYNC:
            return MP_OBJ_NEW_SMALL_INT(0);
        case MP_BLOCKDEV_IOCTL_BLOCK_COUNT:
            return mp_obj_new_int_from_uint(p->size / SIMFLASH_SECTOR);
        case MP_BLOCKDEV_IOCTL_BLOCK_SIZE:
            return MP_OBJ_NEW_SMALL_INT(SIMFLASH_SECTOR);
        case MP_BLOCKDEV_IOCTL_BLOCK_ERASE:
            check(simflash_erase(p, position(p, arg_in, 0)));
            return MP_OBJ_NEW_SMALL_INT(0);
        default:
            return mp_const_none;
    }
}
static MP_DEFINE_CONST_FUN_OBJ_3(partition_ioctl_obj, partition_ioctl);

static const mp_rom_map_elem_t partition_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_readblocks), MP_ROM_PTR(&partition_readblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_writeblocks), MP_ROM_PTR(&partition_writeblocks_obj) },
    { MP_ROM_QSTR(MP_QSTR_ioctl), MP_ROM_PTR(&partition_ioctl_obj) },
};
static MP_DEFINE_CONST_DICT(partition_locals, partition_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    partition_type,
    MP_QSTR_Partition,
    MP_TYPE_FLAG_NONE,
    make_new, partition_make_new,
    print, partition_print,
    attr, partition_attr,
    buffer, partition_get_buffer,
    locals_dict, &partition_locals
    );

// vfs.rom_ioctl(): the ROMFS lives in the partition "romfs", a block device with a buffer, which is
// all that `mpremote romfs` and VfsRom ask for.
mp_obj_t mp_vfs_rom_ioctl(size_t n_args, const mp_obj_t *args) {
    switch (mp_obj_get_int(args[0])) {
        case MP_VFS_ROM_IOCTL_GET_NUMBER_OF_SEGMENTS:
            return MP_OBJ_NEW_SMALL_INT(1);
        case MP_VFS_ROM_IOCTL_GET_SEGMENT:
            if (n_args == 2 && mp_obj_get_int(args[1]) == 0) {
                return partition_find("romfs");
            }
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
        default:
            return MP_OBJ_NEW_SMALL_INT(-MP_EINVAL);
    }
}
