// The CBOR subset of the link (RFC 8949): what SMP needs and no more.
//
// Read: integers that fit int64, byte and text strings of definite length, arrays and maps of definite
// and of indefinite length (zcbor, which Zephyr uses, sends the latter), true, false, null (undefined
// reads as null), half, single and double floats (all delivered as float32). Tags and indefinite-length
// strings are FL_ENOTSUP. Nesting deeper than FL_CBOR_DEPTH is FL_EBADMSG. Nothing is copied: strings
// point into the message.
//
// Write: the same types into a caller's buffer. An overflow sets a flag and later writes do nothing, so
// that one check at the end is enough.
#ifndef FIELDLOOP_FL_CBOR_H
#define FIELDLOOP_FL_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_error.h"

#define FL_CBOR_DEPTH 8
#define FL_CBOR_INDEFINITE SIZE_MAX // `len` of an array or map that ends with FL_CBOR_BREAK

typedef enum {
    FL_CBOR_INT,   // item.i
    FL_CBOR_BYTES, // item.ptr, item.len
    FL_CBOR_TEXT,  // item.ptr, item.len bytes of UTF-8, no NUL at the end
    FL_CBOR_ARRAY, // item.len items follow, or FL_CBOR_INDEFINITE
    FL_CBOR_MAP,   // item.len pairs follow, or FL_CBOR_INDEFINITE
    FL_CBOR_FLOAT, // item.f
    FL_CBOR_BOOL,  // item.i is 0 or 1
    FL_CBOR_NULL,  //
    FL_CBOR_BREAK, // the end of the innermost indefinite array or map
} fl_cbor_type_t;

typedef struct {
    fl_cbor_type_t type;
    int64_t i;
    float f;
    const uint8_t *ptr; // into the message
    size_t len;         // bytes, items or pairs
} fl_cbor_item_t;

// A cursor over bytes that stay where they are. Copy it freely.
typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} fl_cbor_t;

// ---- reading, item by item

static inline fl_cbor_t fl_cbor_over(const uint8_t *bytes, size_t n) {
    fl_cbor_t r = {bytes, bytes + n};
    return r;
}

// Reads one item and moves past it; of an array or map, past its head only.
// FL_EBADMSG: the bytes end inside the item, or are not CBOR. FL_ENOTSUP: outside the subset.
// FL_EBADMSG also at the end of the bytes. After an error the cursor has not moved.
int fl_cbor_next(fl_cbor_t *r, fl_cbor_item_t *item);

// Moves past one whole item, with all that is inside it. A break where an item is expected is
// FL_EBADMSG. After an error the cursor has not moved.
int fl_cbor_skip(fl_cbor_t *r);

// ---- reading a map by key

// `map` stands at a map's head and does not move. Finds the text key `key` and stands `value` at its
// value; the first of two equal keys wins; keys of other types are passed over. FL_ENOENT: no such key.
// FL_EINVAL: not a map. FL_EBADMSG, FL_ENOTSUP: as above.
int fl_cbor_find(const fl_cbor_t *map, const char *key, fl_cbor_t *value);

// Find and read in one: FL_ENOENT when the key is absent (then the result is untouched, so that a
// default can stand in it), FL_EINVAL when the value has another type or is out of range.
int fl_cbor_get_int(const fl_cbor_t *map, const char *key, int64_t *v);
int fl_cbor_get_u32(const fl_cbor_t *map, const char *key, uint32_t *v);
int fl_cbor_get_f32(const fl_cbor_t *map, const char *key, float *v); // an integer is taken, too
int fl_cbor_get_bool(const fl_cbor_t *map, const char *key, bool *v);
int fl_cbor_get_bytes(const fl_cbor_t *map, const char *key, const uint8_t **p, size_t *n);
int fl_cbor_get_text(const fl_cbor_t *map, const char *key, const char **p, size_t *n);

// ---- writing

typedef struct {
    uint8_t *buf;
    size_t cap;
    size_t len;    // bytes written
    bool overflow; // more was asked for than fits; what is in buf is not a whole message
} fl_cbor_w_t;

void fl_cbor_w_init(fl_cbor_w_t *w, uint8_t *buf, size_t cap);

void fl_cbor_put_int(fl_cbor_w_t *w, int64_t v);
void fl_cbor_put_f32(fl_cbor_w_t *w, float v); // always 5 bytes, the bits of `v`
void fl_cbor_put_bool(fl_cbor_w_t *w, bool v);
void fl_cbor_put_null(fl_cbor_w_t *w);
void fl_cbor_put_bytes(fl_cbor_w_t *w, const void *p, size_t n);
void fl_cbor_put_text(fl_cbor_w_t *w, const char *p, size_t n);
void fl_cbor_put_str(fl_cbor_w_t *w, const char *s);     // NUL-terminated: keys, messages
void fl_cbor_put_array(fl_cbor_w_t *w, size_t items);    // or FL_CBOR_INDEFINITE
void fl_cbor_put_map(fl_cbor_w_t *w, size_t pairs);      // or FL_CBOR_INDEFINITE
void fl_cbor_put_break(fl_cbor_w_t *w);                  // ends an indefinite array or map

// A byte string of `n` bytes that the caller fills in place (the output of a prediction needs no
// second buffer). NULL on overflow.
uint8_t *fl_cbor_reserve_bytes(fl_cbor_w_t *w, size_t n);

#endif
