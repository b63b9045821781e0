// CBOR <-> Python objects, for the bodies of the link's messages.
#ifndef FIELDLOOP_MOD_CBOR_H
#define FIELDLOOP_MOD_CBOR_H

#include "py/obj.h"

#include "fieldloop/fl_cbor.h"

// Reads one item as a Python object: int, float, bool, None, str, list, dict (text keys); a byte string
// becomes a read-only memoryview into the message. `base` is the start of the heap block the message lies
// in. Returns FL_OK or what fl_cbor_next() said; raises MemoryError only.
int fl_mp_cbor_read(fl_cbor_t *at, const uint8_t *base, mp_obj_t *object);

// Writes a Python object; float32, bytes-like objects as byte strings. TypeError for others.
void fl_mp_cbor_write(fl_cbor_w_t *w, mp_obj_t object);

// The pairs of a dict, without the head of the map.
void fl_mp_cbor_write_pairs(fl_cbor_w_t *w, mp_obj_t dict);

#endif
