// CBOR <-> Python objects.
#include <string.h>

#include "mod_cbor.h"
#include "mod_common.h"

#include "py/objint.h"
#include "py/objstr.h"
#include "py/smallint.h"

// ---- reading

static mp_obj_t text_of(const fl_cbor_item_t *item) {
    // Known words (the keys) are found, unknown ones are not interned: a stranger must not fill that pool.
    qstr known = qstr_find_strn((const char *)item->ptr, item->len);
    return known != MP_QSTRnull ? MP_OBJ_NEW_QSTR(known) : mp_obj_new_str((const char *)item->ptr, item->len);
}

static int read_item(fl_cbor_t *at, const uint8_t *base, unsigned depth, mp_obj_t *object);

static int read_inside(fl_cbor_t *at, const uint8_t *base, unsigned depth, const fl_cbor_item_t *head,
    mp_obj_t *object) {
    bool is_map = head->type == FL_CBOR_MAP;
    if (depth == 0) {
        return FL_EBADMSG;
    }
    mp_obj_t result = is_map ? mp_obj_new_dict(0) : mp_obj_new_list(0, NULL);
    for (size_t i = 0; i < head->len; ++i) { // FL_CBOR_INDEFINITE never ends by itself
        if (head->len == FL_CBOR_INDEFINITE) {
            fl_cbor_t ahead = *at;
            fl_cbor_item_t item;
            int error = fl_cbor_next(&ahead, &item);
            if (error != FL_OK) {
                return error;
            }
            if (item.type == FL_CBOR_BREAK) {
                *at = ahead;
                break;
            }
        }
        mp_obj_t key = MP_OBJ_NULL;
        if (is_map) {
            int error = read_item(at, base, depth - 1, &key);
            if (error != FL_OK) {
                return error;
            }
            if (!mp_obj_is_str(key) && !mp_obj_is_int(key)) {
                return FL_ENOTSUP;
            }
        }
        mp_obj_t value;
        int error = read_item(at, base, depth - 1, &value);
        if (error != FL_OK) {
            return error;
        }
        if (is_map) {
            // The first of two equal keys wins, as in fl_cbor_find().
            if (mp_map_lookup(mp_obj_dict_get_map(result), key, MP_MAP_LOOKUP) == NULL) {
                mp_obj_dict_store(result, key, value);
            }
        } else {
            mp_obj_list_append(result, value);
        }
    }
    *object = result;
    return FL_OK;
}

static int read_item(fl_cbor_t *at, const uint8_t *base, unsigned depth, mp_obj_t *object) {
    fl_cbor_item_t item;
    int error = fl_cbor_next(at, &item);
    if (error != FL_OK) {
        return error;
    }
    switch (item.type) {
        case FL_CBOR_INT:
            // mp_obj_new_int_from_ll() makes a heap object of every number.
            *object = item.i >= MP_SMALL_INT_MIN && item.i <= MP_SMALL_INT_MAX
                ? MP_OBJ_NEW_SMALL_INT((mp_int_t)item.i) : mp_obj_new_int_from_ll(item.i);
            return FL_OK;
        case FL_CBOR_BYTES:
            *object = fl_mp_view_block(base, (size_t)(item.ptr - base), item.len);
            return FL_OK;
        case FL_CBOR_TEXT:
            *object = text_of(&item);
            return FL_OK;
        case FL_CBOR_FLOAT:
            *object = mp_obj_new_float((mp_float_t)item.f);
            return FL_OK;
        case FL_CBOR_BOOL:
            *object = mp_obj_new_bool(item.i != 0);
            return FL_OK;
        case FL_CBOR_NULL:
            *object = mp_const_none;
            return FL_OK;
        case FL_CBOR_ARRAY:
        case FL_CBOR_MAP:
            return read_inside(at, base, depth, &item, object);
        default:
            return FL_EBADMSG; // a break where an item is expected
    }
}

int fl_mp_cbor_read(fl_cbor_t *at, const uint8_t *base, mp_obj_t *object) {
    return read_item(at, base, FL_CBOR_DEPTH, object);
}

// ---- writing

static void write_int(fl_cbor_w_t *w, mp_obj_t object) {
    if (mp_obj_is_small_int(object)) {
        fl_cbor_put_int(w, MP_OBJ_SMALL_INT_VALUE(object));
        return;
    }
    byte bytes[8]; // big-endian
    bool fits = mp_obj_int_to_bytes_impl(object, true, sizeof(bytes), bytes);
    if (!fits || (bytes[0] >> 7) != (mp_obj_int_sign(object) < 0)) {
        mp_raise_msg(&mp_type_OverflowError, MP_ERROR_TEXT("an integer of a message has more than 63 bits"));
    }
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(bytes); ++i) {
        value = value << 8 | bytes[i];
    }
    fl_cbor_put_int(w, (int64_t)value);
}

static void write_item(fl_cbor_w_t *w, mp_obj_t object, unsigned depth);

// The limit is read_inside()'s: what can be read can be sent back.
static void check_depth(unsigned depth) {
    if (depth == 0) {
        mp_raise_ValueError(MP_ERROR_TEXT("a message is nested too deeply"));
    }
}

static void write_pairs(fl_cbor_w_t *w, mp_map_t *map, unsigned depth) {
    for (size_t i = 0; i < map->alloc; ++i) {
        if (mp_map_slot_is_filled(map, i)) {
            write_item(w, map->table[i].key, depth);
            write_item(w, map->table[i].value, depth);
        }
    }
}

static void write_item(fl_cbor_w_t *w, mp_obj_t object, unsigned depth) {
    mp_buffer_info_t buffer;
    if (object == mp_const_none) {
        fl_cbor_put_null(w);
    } else if (mp_obj_is_bool(object)) {
        fl_cbor_put_bool(w, object == mp_const_true);
    } else if (mp_obj_is_int(object)) {
        write_int(w, object);
    } else if (mp_obj_is_float(object)) {
        fl_cbor_put_f32(w, mp_obj_get_float_to_f(object));
    } else if (mp_obj_is_str(object)) {
        size_t n;
        const char *text = mp_obj_str_get_data(object, &n);
        fl_cbor_put_text(w, text, n);
    } else if (mp_obj_is_dict_or_ordereddict(object)) {
        mp_map_t *map = mp_obj_dict_get_map(object);
        check_depth(depth);
        fl_cbor_put_map(w, map->used);
        write_pairs(w, map, depth - 1);
    } else if (mp_obj_is_type(object, &mp_type_list) || mp_obj_is_type(object, &mp_type_tuple)) {
        size_t n;
        mp_obj_t *items;
        mp_obj_get_array(object, &n, &items);
        check_depth(depth);
        fl_cbor_put_array(w, n);
        for (size_t i = 0; i < n; ++i) {
            write_item(w, items[i], depth - 1);
        }
    } else if (mp_get_buffer(object, &buffer, MP_BUFFER_READ)) {
        fl_cbor_put_bytes(w, buffer.buf, buffer.len);
    } else {
        mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("a message cannot carry %s"),
            mp_obj_get_type_str(object));
    }
}

void fl_mp_cbor_write(fl_cbor_w_t *w, mp_obj_t object) {
    write_item(w, object, FL_CBOR_DEPTH);
}

void fl_mp_cbor_write_pairs(fl_cbor_w_t *w, mp_obj_t dict) {
    if (!mp_obj_is_dict_or_ordereddict(dict)) {
        mp_raise_TypeError(MP_ERROR_TEXT("a message is a dict"));
    }
    write_pairs(w, mp_obj_dict_get_map(dict), FL_CBOR_DEPTH - 1);
}
