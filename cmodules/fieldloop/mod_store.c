// _fieldloop.Store: the power-safe record store on a block device.
#include <string.h>

#include "mod_common.h"
#include "mod_flash.h"

#include "fieldloop/fl_sha256.h"
#include "fieldloop/fl_store.h"

#define PIECES_MAX 4
#define UIDS_MAX 8

typedef struct {
    mp_obj_base_t base;
    fl_store_t st;
    fl_mp_flash_t flash;
    bool listed; // the records of these models alone are kept, for a mount after a failure
    uint8_t uid_count;
    uint8_t uids[UIDS_MAX][FL_STORE_UID_BYTES];
} store_t;

FL_MP_NORETURN static void refuse(store_t *self, int error) {
    fl_mp_flash_reraise(&self->flash);
    switch (error) {
        case FL_ENOSPC:
            fl_mp_raise(error, MP_ERROR_TEXT("store: needs %u bytes of flash, %u available"),
                (unsigned)self->st.needed, (unsigned)self->st.available);
        case FL_ENOENT:
            fl_mp_raise(error, MP_ERROR_TEXT("store: no such record"));
        case FL_ENOTSUP:
            fl_mp_raise(error, MP_ERROR_TEXT("store: of another version or geometry; format() replaces it"));
        case FL_EBADMSG:
            fl_mp_raise(error, MP_ERROR_TEXT("store: record damaged"));
        case FL_EINVAL:
            fl_mp_raise(error, MP_ERROR_TEXT("store: type, length or geometry out of range"));
        default:
            fl_mp_raise(error, MP_ERROR_TEXT("store: the flash failed"));
    }
}

static void mount(store_t *self) {
    const uint8_t(*uids)[FL_STORE_UID_BYTES] = self->listed ? (const uint8_t(*)[FL_STORE_UID_BYTES])self->uids : NULL;
    int error = fl_store_mount(&self->st, &self->flash.flash, uids, self->uid_count);
    if (error != FL_OK) {
        refuse(self, error);
    }
}

// A store whose flash failed, or whose device was broken off by Ctrl-C, is mounted again at the next call.
static store_t *ready(mp_obj_t self_in) {
    store_t *self = MP_OBJ_TO_PTR(self_in);
    if (self->st.failed) {
        mount(self);
    }
    return self;
}

// A model that is written to stays in use, also when the store has to be mounted again.
static void keep(store_t *self, const uint8_t *uid) {
    for (size_t i = 0; i < self->uid_count; ++i) {
        if (memcmp(self->uids[i], uid, FL_STORE_UID_BYTES) == 0) {
            return;
        }
    }
    if (self->uid_count == UIDS_MAX) {
        self->listed = false; // all of them, rather than one too few
        self->uid_count = 0;
    } else if (self->listed) {
        memcpy(self->uids[self->uid_count++], uid, FL_STORE_UID_BYTES);
    }
}

static void mount_for(store_t *self, mp_obj_t uids) {
    uint8_t list[UIDS_MAX][FL_STORE_UID_BYTES];
    size_t n = 0;
    if (uids != mp_const_none) {
        mp_obj_t *items;
        mp_obj_get_array(uids, &n, &items);
        if (n > UIDS_MAX) {
            mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("uids: expected at most %u"), UIDS_MAX);
        }
        for (size_t i = 0; i < n; ++i) {
            mp_buffer_info_t uid;
            fl_mp_get_bytes(items[i], &uid, MP_BUFFER_READ, FL_STORE_UID_BYTES, "uid");
            memcpy(list[i], uid.buf, FL_STORE_UID_BYTES);
        }
    }
    self->listed = uids != mp_const_none;
    self->uid_count = (uint8_t)n;
    memcpy(self->uids, list, n * sizeof(list[0]));
    mount(self);
}

// Store(device, prog_bytes=0, uids=None, format=False): mounts, writes nothing unless told to format.
static mp_obj_t store_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    enum { ARG_device, ARG_prog_bytes, ARG_uids, ARG_format };
    static const mp_arg_t allowed[] = {
        { MP_QSTR_device, MP_ARG_REQUIRED | MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_prog_bytes, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = 0} },
        { MP_QSTR_uids, MP_ARG_KW_ONLY | MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_format, MP_ARG_KW_ONLY | MP_ARG_BOOL, {.u_bool = false} },
    };
    mp_arg_val_t vals[MP_ARRAY_SIZE(allowed)];
    mp_arg_parse_all_kw_array(n_args, n_kw, args, MP_ARRAY_SIZE(allowed), allowed, vals);
    store_t *self = mp_obj_malloc(store_t, type);
    memset(&self->st, 0, sizeof(self->st));
    self->listed = false;
    self->uid_count = 0;
    fl_mp_flash_init(&self->flash, vals[ARG_device].u_obj, vals[ARG_prog_bytes].u_int);
    if (vals[ARG_format].u_bool) {
        int error = fl_store_format(&self->st, &self->flash.flash);
        if (error != FL_OK) {
            refuse(self, error);
        }
    } else {
        mount_for(self, vals[ARG_uids].u_obj);
    }
    return MP_OBJ_FROM_PTR(self);
}

// mount(uids=None): reads the flash again; records of models not listed give way when room is needed.
static mp_obj_t store_mount(size_t n_args, const mp_obj_t *args) {
    mount_for(MP_OBJ_TO_PTR(args[0]), n_args > 1 ? args[1] : mp_const_none);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(store_mount_obj, 1, 2, store_mount);

static mp_obj_t store_format(mp_obj_t self_in) {
    store_t *self = MP_OBJ_TO_PTR(self_in);
    int error = fl_store_format(&self->st, &self->flash.flash);
    if (error != FL_OK) {
        refuse(self, error);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(store_format_obj, store_format);

// append(type, uid, *pieces): a new newest record, whole on the flash when this returns.
static mp_obj_t store_append(size_t n_args, const mp_obj_t *args) {
    store_t *self = ready(args[0]);
    mp_int_t type = mp_obj_get_int(args[1]);
    mp_buffer_info_t uid;
    fl_mp_get_bytes(args[2], &uid, MP_BUFFER_READ, FL_STORE_UID_BYTES, "uid");
    fl_store_piece_t pieces[PIECES_MAX];
    size_t n = n_args - 3;
    for (size_t i = 0; i < n; ++i) {
        mp_buffer_info_t piece;
        fl_mp_get_buffer(args[3 + i], &piece, MP_BUFFER_READ, "piece");
        pieces[i].data = piece.buf;
        pieces[i].len = (uint32_t)piece.len;
    }
    int error = type < 0 || type > 0xffff ? FL_EINVAL : fl_store_append(&self->st, (uint16_t)type, uid.buf, pieces, n);
    if (error != FL_OK) {
        refuse(self, error);
    }
    keep(self, uid.buf);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(store_append_obj, 3, 3 + PIECES_MAX, store_append);

static int find(store_t *self, const mp_obj_t *args, mp_obj_t nth, fl_store_rec_t *rec) {
    mp_int_t type = mp_obj_get_int(args[0]);
    mp_int_t n = mp_obj_get_int(nth);
    mp_buffer_info_t uid;
    fl_mp_get_bytes(args[1], &uid, MP_BUFFER_READ, FL_STORE_UID_BYTES, "uid");
    if (type < 0 || type > 0xffff || n < 0) {
        return FL_EINVAL;
    }
    return fl_store_find(&self->st, (uint16_t)type, uid.buf, (unsigned)n, rec);
}

static mp_obj_t rec_tuple(const fl_store_rec_t *rec) {
    mp_obj_t items[5] = {
        MP_OBJ_NEW_SMALL_INT(rec->type),
        mp_obj_new_bytes(rec->uid, sizeof(rec->uid)),
        mp_obj_new_int_from_uint(rec->seq),
        mp_obj_new_int_from_uint(rec->len),
        mp_obj_new_int_from_uint(rec->crc),
    };
    return mp_obj_new_tuple(5, items);
}

// find(type, uid, nth=0) -> (type, uid, seq, length, crc), or None. nth 0 is the newest.
static mp_obj_t store_find(size_t n_args, const mp_obj_t *args) {
    store_t *self = ready(args[0]);
    fl_store_rec_t rec;
    int error = find(self, args + 1, n_args > 3 ? args[3] : MP_OBJ_NEW_SMALL_INT(0), &rec);
    if (error == FL_ENOENT) {
        return mp_const_none;
    }
    if (error != FL_OK) {
        refuse(self, error);
    }
    return rec_tuple(&rec);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(store_find_obj, 3, 4, store_find);

// read(type, uid, nth, buffer, offset=0): fills the buffer from the record's payload.
static mp_obj_t store_read(size_t n_args, const mp_obj_t *args) {
    store_t *self = ready(args[0]);
    fl_store_rec_t rec;
    mp_int_t offset = n_args > 5 ? mp_obj_get_int(args[5]) : 0;
    int error = find(self, args + 1, args[3], &rec);
    if (error != FL_OK) {
        refuse(self, error);
    }
    mp_buffer_info_t to;
    fl_mp_get_buffer(args[4], &to, MP_BUFFER_WRITE, "buffer");
    if (offset < 0 || (mp_uint_t)offset > rec.len || to.len > rec.len - (mp_uint_t)offset) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("record has %u bytes; asked for %u from %d"),
            (unsigned)rec.len, (unsigned)to.len, (int)offset);
    }
    error = fl_store_read(&self->st, &rec, (uint32_t)offset, to.buf, (uint32_t)to.len);
    if (error != FL_OK) {
        refuse(self, error);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(store_read_obj, 5, 6, store_read);

// sha256(type, uid, nth=0) -> 32 bytes: of the record's payload.
static mp_obj_t store_sha256(size_t n_args, const mp_obj_t *args) {
    store_t *self = ready(args[0]);
    fl_store_rec_t rec;
    int error = find(self, args + 1, n_args > 3 ? args[3] : MP_OBJ_NEW_SMALL_INT(0), &rec);
    uint8_t piece[256];
    fl_sha256_t st;
    fl_sha256_init(&st);
    for (uint32_t at = 0; error == FL_OK && at < rec.len;) {
        uint32_t part = rec.len - at < sizeof(piece) ? rec.len - at : (uint32_t)sizeof(piece);
        error = fl_store_read(&self->st, &rec, at, piece, part);
        fl_sha256_update(&st, piece, part);
        at += part;
    }
    if (error != FL_OK) {
        refuse(self, error);
    }
    uint8_t digest[FL_SHA256_BYTES];
    fl_sha256_final(&st, digest);
    return mp_obj_new_bytes(digest, sizeof(digest));
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(store_sha256_obj, 3, 4, store_sha256);

// copy(type, uid, nth): appends an older record again as the newest.
static mp_obj_t store_copy(size_t n_args, const mp_obj_t *args) {
    (void)n_args;
    store_t *self = ready(args[0]);
    fl_store_rec_t rec;
    int error = find(self, args + 1, args[3], &rec);
    if (error == FL_OK) {
        error = fl_store_copy(&self->st, &rec);
    }
    if (error != FL_OK) {
        refuse(self, error);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(store_copy_obj, 4, 4, store_copy);

// records() -> the live records, as find() tells one.
static mp_obj_t store_records(mp_obj_t self_in) {
    store_t *self = ready(self_in);
    mp_obj_t list = mp_obj_new_list(0, NULL);
    fl_store_rec_t rec;
    for (unsigned i = 0; fl_store_each(&self->st, i, &rec) == FL_OK; ++i) {
        mp_obj_list_append(list, rec_tuple(&rec));
    }
    return list;
}
static MP_DEFINE_CONST_FUN_OBJ_1(store_records_obj, store_records);

static void store_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    (void)kind;
    const fl_flash_t *flash = &((store_t *)MP_OBJ_TO_PTR(self_in))->flash.flash;
    mp_printf(print, "Store(%u sectors of %u bytes, program unit %u)", (unsigned)flash->sector_count,
        (unsigned)flash->sector_bytes, (unsigned)flash->prog_bytes);
}

static const mp_rom_map_elem_t store_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_mount), MP_ROM_PTR(&store_mount_obj) },
    { MP_ROM_QSTR(MP_QSTR_format), MP_ROM_PTR(&store_format_obj) },
    { MP_ROM_QSTR(MP_QSTR_append), MP_ROM_PTR(&store_append_obj) },
    { MP_ROM_QSTR(MP_QSTR_find), MP_ROM_PTR(&store_find_obj) },
    { MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&store_read_obj) },
    { MP_ROM_QSTR(MP_QSTR_sha256), MP_ROM_PTR(&store_sha256_obj) },
    { MP_ROM_QSTR(MP_QSTR_copy), MP_ROM_PTR(&store_copy_obj) },
    { MP_ROM_QSTR(MP_QSTR_records), MP_ROM_PTR(&store_records_obj) },
};
static MP_DEFINE_CONST_DICT(store_locals, store_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    fl_mp_type_store,
    MP_QSTR_Store,
    MP_TYPE_FLAG_NONE,
    make_new, store_make_new,
    print, store_print,
    locals_dict, &store_locals
    );
