// _fieldloop.Slot: writes an image into a raw partition, chunk by chunk.
#include <string.h>

#include "mod_common.h"
#include "mod_flash.h"

#include "fieldloop/fl_sha256.h"
#include "fieldloop/fl_slot.h"

typedef struct {
    mp_obj_base_t base;
    fl_slot_t slot;
    fl_mp_flash_t flash;
} slot_t;

static uint32_t size_of(const slot_t *self) {
    return self->flash.flash.sector_bytes * self->flash.flash.sector_count;
}

static void check(slot_t *self, int error, mp_uint_t asked) {
    if (error == FL_OK) {
        return;
    }
    fl_mp_flash_reraise(&self->flash);
    switch (error) {
        case FL_ENOSPC:
            fl_mp_raise(error, MP_ERROR_TEXT("slot: needs %u bytes, %u available"), (unsigned)asked,
                (unsigned)size_of(self));
        case FL_EAGAIN:
            fl_mp_raise(error, MP_ERROR_TEXT("slot: %u of %u bytes written"), (unsigned)self->slot.next,
                (unsigned)self->slot.total);
        case FL_EINVAL:
            fl_mp_raise(error, MP_ERROR_TEXT("slot: expected the chunk at byte %u of %u, got %u"),
                (unsigned)self->slot.next, (unsigned)self->slot.total, (unsigned)asked);
        default:
            fl_mp_raise(error, MP_ERROR_TEXT("slot: the flash failed; begin again"));
    }
}

// Slot(device, prog_bytes=0)
static mp_obj_t slot_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 1, 2, false);
    slot_t *self = mp_obj_malloc(slot_t, type);
    memset(&self->slot, 0, sizeof(self->slot));
    fl_mp_flash_init(&self->flash, args[0], n_args > 1 ? mp_obj_get_int(args[1]) : 0);
    return MP_OBJ_FROM_PTR(self);
}

static uint32_t get_u32(mp_obj_t object) {
    mp_int_t n = mp_obj_get_int(object);
    if (n < 0) {
        mp_raise_ValueError(MP_ERROR_TEXT("slot: expected 0 or more bytes"));
    }
    return (uint32_t)n;
}

// begin(total): erases what makes the old image one.
static mp_obj_t slot_begin(mp_obj_t self_in, mp_obj_t total_in) {
    slot_t *self = MP_OBJ_TO_PTR(self_in);
    uint32_t total = get_u32(total_in);
    check(self, fl_slot_begin(&self->slot, &self->flash.flash, total), total);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(slot_begin_obj, slot_begin);

// write(offset, data): the next chunk.
static mp_obj_t slot_write(mp_obj_t self_in, mp_obj_t offset_in, mp_obj_t data_in) {
    slot_t *self = MP_OBJ_TO_PTR(self_in);
    uint32_t offset = get_u32(offset_in);
    mp_buffer_info_t data;
    fl_mp_get_buffer(data_in, &data, MP_BUFFER_READ, "data");
    check(self, fl_slot_write(&self->slot, offset, data.buf, (uint32_t)data.len), offset);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(slot_write_obj, slot_write);

// end(): programs the tail; all is on the flash when this returns.
static mp_obj_t slot_end(mp_obj_t self_in) {
    slot_t *self = MP_OBJ_TO_PTR(self_in);
    check(self, fl_slot_end(&self->slot), self->slot.total);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(slot_end_obj, slot_end);

static void read_at(slot_t *self, uint32_t offset, void *to, uint32_t n) {
    if (offset > size_of(self) || n > size_of(self) - offset) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("slot: has %u bytes; asked for %u from %u"),
            (unsigned)size_of(self), (unsigned)n, (unsigned)offset);
    }
    int error = self->flash.flash.read(&self->flash, offset, to, n);
    if (error != FL_OK) {
        fl_mp_flash_reraise(&self->flash);
        fl_mp_raise(error, MP_ERROR_TEXT("slot: the flash could not be read"));
    }
}

// readinto(offset, buffer): what the slot holds now.
static mp_obj_t slot_readinto(mp_obj_t self_in, mp_obj_t offset, mp_obj_t buffer) {
    uint32_t from = get_u32(offset);
    mp_buffer_info_t to;
    fl_mp_get_buffer(buffer, &to, MP_BUFFER_WRITE, "buffer");
    read_at(MP_OBJ_TO_PTR(self_in), from, to.buf, (uint32_t)to.len);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(slot_readinto_obj, slot_readinto);

// sha256(n) -> 32 bytes: of the first n bytes as they can be read back.
static mp_obj_t slot_sha256(mp_obj_t self_in, mp_obj_t n_in) {
    slot_t *self = MP_OBJ_TO_PTR(self_in);
    uint32_t n = get_u32(n_in);
    uint8_t piece[256];
    fl_sha256_t st;
    fl_sha256_init(&st);
    for (uint32_t at = 0; at < n;) {
        uint32_t part = n - at < sizeof(piece) ? n - at : (uint32_t)sizeof(piece);
        read_at(self, at, piece, part);
        fl_sha256_update(&st, piece, part);
        at += part;
    }
    uint8_t digest[FL_SHA256_BYTES];
    fl_sha256_final(&st, digest);
    return mp_obj_new_bytes(digest, sizeof(digest));
}
static MP_DEFINE_CONST_FUN_OBJ_2(slot_sha256_obj, slot_sha256);

static void slot_attr(mp_obj_t self_in, qstr attr, mp_obj_t *dest) {
    slot_t *self = MP_OBJ_TO_PTR(self_in);
    if (dest[0] != MP_OBJ_NULL) {
        return; // nothing can be set
    }
    switch (attr) {
        case MP_QSTR_size: dest[0] = mp_obj_new_int_from_uint(size_of(self)); break;
        case MP_QSTR_next: dest[0] = mp_obj_new_int_from_uint(self->slot.next); break;
        case MP_QSTR_open: dest[0] = mp_obj_new_bool(self->slot.open != 0); break;
        default: dest[1] = MP_OBJ_SENTINEL; break; // a method
    }
}

static void slot_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    (void)kind;
    slot_t *self = MP_OBJ_TO_PTR(self_in);
    mp_printf(print, "Slot(%u bytes, %u of %u written)", (unsigned)size_of(self), (unsigned)self->slot.next,
        (unsigned)self->slot.total);
}

static const mp_rom_map_elem_t slot_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_begin), MP_ROM_PTR(&slot_begin_obj) },
    { MP_ROM_QSTR(MP_QSTR_write), MP_ROM_PTR(&slot_write_obj) },
    { MP_ROM_QSTR(MP_QSTR_end), MP_ROM_PTR(&slot_end_obj) },
    { MP_ROM_QSTR(MP_QSTR_readinto), MP_ROM_PTR(&slot_readinto_obj) },
    { MP_ROM_QSTR(MP_QSTR_sha256), MP_ROM_PTR(&slot_sha256_obj) },
};
static MP_DEFINE_CONST_DICT(slot_locals, slot_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    fl_mp_type_slot,
    MP_QSTR_Slot,
    MP_TYPE_FLAG_NONE,
    make_new, slot_make_new,
    print, slot_print,
    attr, slot_attr,
    locals_dict, &slot_locals
    );
