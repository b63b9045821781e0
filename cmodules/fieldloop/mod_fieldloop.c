// The C module `_fieldloop`: what the package `fieldloop` stands on. One type a file beside this one.
#include "mod_common.h"

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_kernels.h"
#include "fieldloop/fl_link.h"
#include "fieldloop/fl_random.h"
#include "fieldloop/fl_sha256.h"

// check(image) -> 0, or minus an errno-valued error: -74 damaged or foreign, -95 too new, -1001 misaligned.
static mp_obj_t module_check(mp_obj_t image_in) {
    mp_buffer_info_t image;
    fl_mp_get_buffer(image_in, &image, MP_BUFFER_READ, "image");
    return MP_OBJ_NEW_SMALL_INT(fl_image_check(image.buf, image.len));
}
static MP_DEFINE_CONST_FUN_OBJ_1(module_check_obj, module_check);

// crc32(data, crc=0): zlib's, in pieces.
static mp_obj_t module_crc32(size_t n_args, const mp_obj_t *args) {
    uint32_t crc = n_args > 1 ? (uint32_t)mp_obj_get_int_truncated(args[1]) : 0;
    mp_buffer_info_t data;
    fl_mp_get_buffer(args[0], &data, MP_BUFFER_READ, "data");
    return mp_obj_new_int_from_uint(fl_crc32(crc, data.buf, data.len));
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(module_crc32_obj, 1, 2, module_crc32);

// sha256(data) -> 32 bytes; data is bytes-like, or an iterable of such. hashlib is not on every port.
static mp_obj_t module_sha256(mp_obj_t data_in) {
    fl_sha256_t st;
    fl_sha256_init(&st);
    mp_buffer_info_t data;
    if (!mp_obj_is_str(data_in) && mp_get_buffer(data_in, &data, MP_BUFFER_READ)) {
        fl_sha256_update(&st, data.buf, data.len);
    } else {
        mp_obj_iter_buf_t iter_buf;
        mp_obj_t iterable = mp_getiter(data_in, &iter_buf);
        mp_obj_t item;
        while ((item = mp_iternext(iterable)) != MP_OBJ_STOP_ITERATION) {
            fl_mp_get_buffer(item, &data, MP_BUFFER_READ, "data");
            fl_sha256_update(&st, data.buf, data.len);
        }
    }
    uint8_t digest[FL_SHA256_BYTES];
    fl_sha256_final(&st, digest);
    return mp_obj_new_bytes(digest, sizeof(digest));
}
static MP_DEFINE_CONST_FUN_OBJ_1(module_sha256_obj, module_sha256);

// random_fill(buffer, seed): the bytes that a host makes of the same seed. Allocates nothing.
static mp_obj_t module_random_fill(mp_obj_t buffer_in, mp_obj_t seed_in) {
    uint32_t seed = (uint32_t)mp_obj_get_int_truncated(seed_in);
    mp_buffer_info_t buffer;
    fl_mp_get_buffer(buffer_in, &buffer, MP_BUFFER_WRITE, "buffer");
    fl_random_fill(buffer.buf, buffer.len, seed);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(module_random_fill_obj, module_random_fill);

// kernels(): "plain", "dsp" or "mve": what the operators are run by, and so the RAM beside the plan's.
static mp_obj_t module_kernels(void) {
    static const qstr names[] = {
        [FL_KERNELS_PLAIN] = MP_QSTR_plain, [FL_KERNELS_DSP] = MP_QSTR_dsp, [FL_KERNELS_MVE] = MP_QSTR_mve,
    };
    return MP_OBJ_NEW_QSTR(names[fl_kernels_variant()]);
}
static MP_DEFINE_CONST_FUN_OBJ_0(module_kernels_obj, module_kernels);

static const mp_rom_obj_tuple_t version_obj = {
    {&mp_type_tuple}, 3, {MP_ROM_INT(0), MP_ROM_INT(1), MP_ROM_INT(0)}
};

static const mp_rom_map_elem_t module_globals_table[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__fieldloop) },
    { MP_ROM_QSTR(MP_QSTR_Model), MP_ROM_PTR(&fl_mp_type_model) },
    { MP_ROM_QSTR(MP_QSTR_Learner), MP_ROM_PTR(&fl_mp_type_learner) },
    { MP_ROM_QSTR(MP_QSTR_Store), MP_ROM_PTR(&fl_mp_type_store) },
    { MP_ROM_QSTR(MP_QSTR_Slot), MP_ROM_PTR(&fl_mp_type_slot) },
    { MP_ROM_QSTR(MP_QSTR_Link), MP_ROM_PTR(&fl_mp_type_link) },
    { MP_ROM_QSTR(MP_QSTR_check), MP_ROM_PTR(&module_check_obj) },
    { MP_ROM_QSTR(MP_QSTR_crc32), MP_ROM_PTR(&module_crc32_obj) },
    { MP_ROM_QSTR(MP_QSTR_sha256), MP_ROM_PTR(&module_sha256_obj) },
    { MP_ROM_QSTR(MP_QSTR_random_fill), MP_ROM_PTR(&module_random_fill_obj) },
    { MP_ROM_QSTR(MP_QSTR_kernels), MP_ROM_PTR(&module_kernels_obj) },
    { MP_ROM_QSTR(MP_QSTR_version), MP_ROM_PTR(&version_obj) },
    { MP_ROM_QSTR(MP_QSTR_protocol), MP_ROM_INT(FL_LINK_PROTO) },
};
static MP_DEFINE_CONST_DICT(module_globals, module_globals_table);

const mp_obj_module_t fl_mp_module = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&module_globals,
};

MP_REGISTER_MODULE(MP_QSTR__fieldloop, fl_mp_module);
