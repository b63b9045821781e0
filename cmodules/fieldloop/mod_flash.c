// Block device -> fl_flash_t. An exception of the device never jumps through the core: it is kept, the core
// sees FL_EIO and comes to its end, and then it is raised.
#include <string.h>

#include "mod_common.h"
#include "mod_flash.h"


static int device_error(int result) {
    // The helpers of extmod/vfs return 0 or -errno, whose numbers are the core's.
    return result == 0 ? FL_OK : result < 0 ? result : FL_EIO;
}

// ---- the five calls, each split at the device's blocks and each with its exceptions caught

static int read_blocks(fl_mp_flash_t *self, uint32_t address, uint8_t *to, uint32_t n) {
    uint32_t size = (uint32_t)self->device.block_size;
    while (n > 0) {
        uint32_t offset = address % size;
        uint32_t part = size - offset < n ? size - offset : n;
        int result = device_error(mp_vfs_blockdev_read_ext(&self->device, address / size, offset, part, to));
        if (result != FL_OK) {
            return result;
        }
        address += part;
        to += part;
        n -= part;
    }
    return FL_OK;
}

// Writes within one block.
static int write_piece(fl_mp_flash_t *self, uint32_t address, const uint8_t *from, uint32_t n) {
    uint32_t size = (uint32_t)self->device.block_size;
    return device_error(mp_vfs_blockdev_write_ext(&self->device, address / size, address % size, n, from));
}

static int write_blocks(fl_mp_flash_t *self, uint32_t address, const uint8_t *from, uint32_t n) {
    uint32_t span = self->page != NULL ? self->page_bytes : (uint32_t)self->device.block_size;
    while (n > 0) {
        uint32_t offset = address % span;
        uint32_t part = span - offset < n ? span - offset : n;
        int result;
        if (self->page != NULL && part != span) {
            memset(self->page, 0xff, span);
            memcpy(self->page + offset, from, part);
            result = write_piece(self, address - offset, self->page, span);
        } else {
            result = write_piece(self, address, from, part);
        }
        if (result != FL_OK) {
            return result;
        }
        address += part;
        from += part;
        n -= part;
    }
    return FL_OK;
}

static int ioctl_of(fl_mp_flash_t *self, uintptr_t command, uintptr_t argument) {
    mp_obj_t result = mp_vfs_blockdev_ioctl(&self->device, command, argument);
    return result == mp_const_none ? FL_OK : device_error((int)mp_obj_get_int(result));
}

static int erase_blocks(fl_mp_flash_t *self, uint32_t sector) {
    for (uint32_t i = 0; i < self->blocks_each; ++i) {
        int result = ioctl_of(self, MP_BLOCKDEV_IOCTL_BLOCK_ERASE, sector * self->blocks_each + i);
        if (result != FL_OK) {
            return result;
        }
    }
    return FL_OK;
}

#define GUARDED(call) \
    fl_mp_flash_t *self = ctx; \
    nlr_buf_t nlr; \
    if (nlr_push(&nlr) != 0) { \
        self->raised = MP_OBJ_FROM_PTR(nlr.ret_val); \
        return FL_EIO; \
    } \
    int result = call; \
    nlr_pop(); \
    return result

static int flash_read(void *ctx, uint32_t address, void *to, uint32_t n) {
    GUARDED(read_blocks(self, address, to, n));
}

static int flash_prog(void *ctx, uint32_t address, const void *from, uint32_t n) {
    GUARDED(write_blocks(self, address, from, n));
}

static int flash_erase(void *ctx, uint32_t sector) {
    GUARDED(erase_blocks(self, sector));
}

static int flash_sync(void *ctx) {
    GUARDED(ioctl_of(self, MP_BLOCKDEV_IOCTL_SYNC, 0));
}

// ---- life

static mp_int_t asked(fl_mp_flash_t *self, uintptr_t command) {
    mp_obj_t answer = mp_vfs_blockdev_ioctl(&self->device, command, 0);
    mp_int_t n;
    if (!mp_obj_get_int_maybe(answer, &n) || n <= 0) {
        mp_raise_ValueError(MP_ERROR_TEXT("block device: ioctl 4 and 5 must tell block count and block size"));
    }
    return n;
}

void fl_mp_flash_init(fl_mp_flash_t *self, mp_obj_t device, mp_int_t prog_bytes) {
    memset(self, 0, sizeof(*self));
    self->object = device;
    self->raised = MP_OBJ_NULL;
    mp_vfs_blockdev_init(&self->device, device);
    if (!(self->device.flags & MP_BLOCKDEV_FLAG_HAVE_IOCTL)) {
        mp_raise_TypeError(MP_ERROR_TEXT("block device: expected readblocks, writeblocks and ioctl"));
    }
    uint32_t blocks = (uint32_t)asked(self, MP_BLOCKDEV_IOCTL_BLOCK_COUNT);
    uint32_t block_bytes = (uint32_t)asked(self, MP_BLOCKDEV_IOCTL_BLOCK_SIZE);
    self->device.block_size = block_bytes;
    if (prog_bytes == 0) {
        mp_obj_t attribute[2];
        mp_load_method_maybe(device, MP_QSTR_prog_size, attribute);
        prog_bytes = attribute[0] == MP_OBJ_NULL ? FL_FLASH_PROG_MAX : mp_obj_get_int(attribute[0]);
    }
    self->page_bytes = (uint32_t)prog_bytes;
    uint32_t unit = self->page_bytes;
    if (prog_bytes > FL_FLASH_PROG_MAX) {
        if (block_bytes % self->page_bytes != 0) {
            mp_raise_ValueError(MP_ERROR_TEXT("block device: the block size is no multiple of prog_size"));
        }
        unit = FL_FLASH_PROG_MAX;
        self->page = m_new(uint8_t, self->page_bytes);
    }
    self->blocks_each = (blocks + FL_FLASH_SECTORS_MAX - 1) / FL_FLASH_SECTORS_MAX;
    self->flash.ctx = self;
    self->flash.sector_bytes = block_bytes * self->blocks_each;
    self->flash.sector_count = blocks / self->blocks_each;
    self->flash.prog_bytes = unit;
    self->flash.read = flash_read;
    self->flash.prog = flash_prog;
    self->flash.erase = flash_erase;
    self->flash.sync = flash_sync;
    if (fl_flash_check(&self->flash, 1) != FL_OK) {
        mp_raise_msg_varg(&mp_type_ValueError,
            MP_ERROR_TEXT("block device: %u sectors of %u bytes, program unit %u: not a geometry for the store"),
            (unsigned)self->flash.sector_count, (unsigned)self->flash.sector_bytes, (unsigned)unit);
    }
}

void fl_mp_flash_reraise(fl_mp_flash_t *self) {
    if (self->raised != MP_OBJ_NULL) {
        mp_obj_t raised = self->raised;
        self->raised = MP_OBJ_NULL;
        nlr_raise(raised);
    }
}
