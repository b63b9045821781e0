// What the files of the MicroPython binding share: errors, buffers, memory, and each other's types.
//
// The binding parses arguments, checks buffers, maps errors and owns lifetimes. Arithmetic is the core's.
#ifndef FIELDLOOP_MOD_COMMON_H
#define FIELDLOOP_MOD_COMMON_H

#include "py/obj.h"
#include "py/runtime.h"

#include "fieldloop/fl_error.h"
#include "fieldloop/fl_learn.h"
#include "fieldloop/fl_model.h"

#if !MICROPY_PY_BUILTINS_FLOAT
#error "_fieldloop needs a MicroPython with floats (MICROPY_FLOAT_IMPL)"
#endif

// MicroPython renamed its own (NORETURN, MP_NORETURN) between 1.25 and 1.26.
#define FL_MP_NORETURN __attribute__((noreturn))

// An arena or an image buffer must start at a 16-byte boundary. Every block of MicroPython's heap does.
_Static_assert(MICROPY_BYTES_PER_GC_BLOCK % 16 == 0, "blocks of the heap are not 16-byte aligned");

// ---- errors

// Raises what a negative result of the core means: MemoryError for FL_ENOMEM, OSError for what a device
// can do (FL_ENOENT, FL_EIO, FL_EBUSY, FL_ENOSPC, FL_EAGAIN), ValueError for the rest. `text` says what
// was expected and what to do next; %u, %d, %s, %q as in mp_printf.
FL_MP_NORETURN void fl_mp_raise(int error, mp_rom_error_text_t text, ...);

// The same for an image that fl_image_check or fl_model_open refused.
FL_MP_NORETURN void fl_mp_raise_image(int error, size_t bytes);

// ---- buffers
//
// Numbers are parsed before buffers and before an object is known to be open: an argument's __int__ or
// __float__ is Python code, which may resize the one and close the other.

// A buffer of exactly `bytes` bytes holding int8 or raw bytes: bytes, bytearray, memoryview, array('b'),
// array('B'). TypeError and ValueError name the argument, what was expected and what came.
void fl_mp_get_bytes(mp_obj_t object, mp_buffer_info_t *buffer, mp_uint_t flags, size_t bytes, const char *name);

// Any bytes-like object, whatever its length.
void fl_mp_get_buffer(mp_obj_t object, mp_buffer_info_t *buffer, mp_uint_t flags, const char *name);

// A read-only memoryview of the bytes [from, from + n) of `source`'s buffer; keeps that buffer alive.
mp_obj_t fl_mp_view(mp_obj_t source, size_t from, size_t n);

// The same of a heap block (`base` is its start) that belongs to no Python object of its own.
mp_obj_t fl_mp_view_block(const void *base, size_t from, size_t n);

// ---- memory

// Heap memory at a 16-byte boundary; MemoryError tells the bytes that are missing.
void *fl_mp_alloc(size_t bytes, const char *what);
FL_MP_NORETURN void fl_mp_raise_no_memory(size_t bytes, const char *what);

// Highest byte of [p, p + n) that differs from `paint`, plus one; 0 when none does.
size_t fl_mp_touched(const uint8_t *p, size_t n, uint8_t paint);

// ---- types

typedef struct {
    mp_obj_base_t base;
    mp_obj_t source;  // the object whose buffer is the image
    mp_obj_t learner; // whose weights the model runs with; MP_OBJ_NULL: the image's own
    fl_model_t m;     // m.image == NULL: closed
    uint32_t crc;     // of the image, as its header said when it was checked
    bool viewed;      // somebody was given a view into the arena
} fl_mp_model_t;

extern const mp_obj_type_t fl_mp_type_model;
extern const mp_obj_type_t fl_mp_type_learner;
extern const mp_obj_type_t fl_mp_type_store;
extern const mp_obj_type_t fl_mp_type_slot;
extern const mp_obj_type_t fl_mp_type_link;

// The model of `object`, open and with its image still where it was; raises otherwise.
fl_mp_model_t *fl_mp_get_model(mp_obj_t object);

// Gives the model an arena for this plan, in place of the one it has. On an error the old one is back.
void fl_mp_model_bind(fl_mp_model_t *self, uint32_t plan_kind);

// Takes the weights of `learner` out of its model and closes it.
void fl_mp_learner_close(mp_obj_t learner);

#endif
