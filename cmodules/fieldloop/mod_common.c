// Errors, buffers and memory for the binding's other files.
#include <stdarg.h> // before obj.h, which declares what takes a va_list only then

#include "mod_common.h"

#include "py/binary.h"
#include "py/gc.h"
#include "py/mperrno.h"
#include "py/objarray.h"

static const mp_obj_type_t *exception_of(int error) {
    switch (error) {
        case FL_ENOMEM:
            return &mp_type_MemoryError;
        case FL_ENOENT:
        case FL_EIO:
        case FL_EAGAIN:
        case FL_EBUSY:
        case FL_ENOSPC:
            return &mp_type_OSError;
        default:
            return &mp_type_ValueError;
    }
}

void fl_mp_raise(int error, mp_rom_error_text_t text, ...) {
    const mp_obj_type_t *type = exception_of(error);
    bool numbered = type == &mp_type_OSError;
    va_list args;
    va_start(args, text);
    mp_obj_t exception = mp_obj_new_exception_msg_vlist(numbered ? &mp_type_ValueError : type, text, args);
    va_end(args);
    if (numbered) { // an OSError carries its number before the text
        mp_obj_t both[2] = {MP_OBJ_NEW_SMALL_INT(-error), mp_obj_exception_get_value(exception)};
        exception = mp_obj_new_exception_args(type, 2, both);
    }
    nlr_raise(exception);
}

void fl_mp_raise_image(int error, size_t bytes) {
    switch (error) {
        case FL_EALIGN:
            mp_raise_ValueError(MP_ERROR_TEXT(
                "image does not start at a 16-byte boundary; push it with --romfs, or read it into a bytearray"));
        case FL_ENOTSUP:
            mp_raise_ValueError(MP_ERROR_TEXT(
                "image needs a newer fieldloop: version, section or operator unknown here; update the firmware"));
        case FL_EBADMSG:
            mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT(
                "not a whole .flm image: damaged, cut short or foreign (%u bytes available); push it again"),
                (unsigned)bytes);
        default:
            mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("image refused, error %d"), error);
    }
}

void fl_mp_get_buffer(mp_obj_t object, mp_buffer_info_t *buffer, mp_uint_t flags, const char *name) {
    if (mp_obj_is_str(object) || !mp_get_buffer(object, buffer, MP_BUFFER_READ)) {
        mp_raise_msg_varg(&mp_type_TypeError,
            MP_ERROR_TEXT("%s: expected a bytes-like object, got %s"), name, mp_obj_get_type_str(object));
    }
    if ((flags & MP_BUFFER_WRITE) && !mp_get_buffer(object, buffer, flags)) {
        mp_raise_msg_varg(&mp_type_TypeError,
            MP_ERROR_TEXT("%s: expected a writable buffer, got a read-only %s"), name, mp_obj_get_type_str(object));
    }
}

void fl_mp_get_bytes(mp_obj_t object, mp_buffer_info_t *buffer, mp_uint_t flags, size_t bytes, const char *name) {
    fl_mp_get_buffer(object, buffer, flags, name);
    int typecode = buffer->typecode & 0x7f;
    if (typecode != 'b' && typecode != 'B' && typecode != BYTEARRAY_TYPECODE) {
        mp_raise_msg_varg(&mp_type_TypeError,
            MP_ERROR_TEXT("%s: expected int8 elements ('b' or 'B'), got '%c'"), name, typecode);
    }
    if (buffer->len != bytes) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%s: expected %u bytes, got %u"), name,
            (unsigned)bytes, (unsigned)buffer->len);
    }
}

mp_obj_t fl_mp_view(mp_obj_t source, size_t from, size_t n) {
    mp_obj_t whole = mp_call_function_1(MP_OBJ_FROM_PTR(&mp_type_memoryview), source);
    mp_obj_array_t *view = MP_OBJ_TO_PTR(whole);
    // Cut here and not by slicing, which would count in the source's own elements. `free` is what objarray.c
    // calls memview_offset.
    size_t start = view->free * mp_binary_get_size('@', view->typecode & 0x7f, NULL) + from;
    if (start >= (1ULL << MP_OBJ_ARRAY_FREE_SIZE_BITS)) {
        mp_raise_msg(&mp_type_OverflowError, MP_ERROR_TEXT("image too large for a view into it"));
    }
    view->typecode = 'B';
    view->free = start;
    view->len = n;
    return whole;
}

mp_obj_t fl_mp_view_block(const void *base, size_t from, size_t n) {
    if (from >= (1ULL << MP_OBJ_ARRAY_FREE_SIZE_BITS)) {
        mp_raise_msg(&mp_type_OverflowError, MP_ERROR_TEXT("too far into the arena for a view"));
    }
    mp_obj_t view = mp_obj_new_memoryview('B', n, (void *)(uintptr_t)base);
    // The collector knows a block by its start only, so the view points there and keeps the distance apart.
    ((mp_obj_array_t *)MP_OBJ_TO_PTR(view))->free = from;
    return view;
}

void fl_mp_raise_no_memory(size_t bytes, const char *what) {
    gc_info_t info;
    gc_info(&info);
    size_t largest = info.max_free * MICROPY_BYTES_PER_GC_BLOCK;
    mp_raise_msg_varg(&mp_type_MemoryError,
        MP_ERROR_TEXT("%s: needs %u bytes in one piece, the largest free piece has %u, %u missing"), what,
        (unsigned)bytes, (unsigned)largest, (unsigned)(bytes > largest ? bytes - largest : 0));
}

void *fl_mp_alloc(size_t bytes, const char *what) {
    void *p = m_malloc_maybe(bytes);
    if (p == NULL) {
        fl_mp_raise_no_memory(bytes, what);
    }
    return p;
}

size_t fl_mp_touched(const uint8_t *p, size_t n, uint8_t paint) {
    while (n > 0 && p[n - 1] == paint) {
        --n;
    }
    return n;
}
