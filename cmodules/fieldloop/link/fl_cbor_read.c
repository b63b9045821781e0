#include <string.h>

#include "fieldloop/fl_cbor.h"

// The first byte of an item: major type in the top three bits, additional information below.
enum { UINT = 0, NINT = 1, BYTES = 2, TEXT = 3, ARRAY = 4, MAP = 5, TAG = 6, SIMPLE = 7 };
enum {
    AI_FALSE = 20, AI_TRUE = 21, AI_NULL = 22, AI_UNDEFINED = 23,
    AI_F16 = 25, AI_F32 = 26, AI_F64 = 27, AI_INDEFINITE = 31,
};

static float f32_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t f32_bits_of_f16(uint32_t h) {
    uint32_t sign = (h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u;
    uint32_t mantissa = h & 0x3ffu;
    if (exponent == 31) {
        return sign | 0x7f800000u | mantissa << 13;
    }
    if (exponent > 0) {
        return sign | (exponent + 112) << 23 | mantissa << 13;
    }
    if (mantissa == 0) {
        return sign;
    }
    exponent = 113; // subnormal: shift until the hidden bit stands at its place
    while ((mantissa & 0x400u) == 0) {
        mantissa <<= 1;
        exponent--;
    }
    return sign | exponent << 23 | (mantissa & 0x3ffu) << 13;
}

// Round to nearest, ties to even, in integers: parts without a double unit need no library for it.
static uint32_t f32_bits_of_f64(uint64_t d) {
    uint32_t sign = (uint32_t)(d >> 32) & 0x80000000u;
    int32_t exponent = (int32_t)((d >> 52) & 0x7ffu);
    uint64_t mantissa = d & ((UINT64_C(1) << 52) - 1);
    if (exponent == 0x7ff) {
        uint32_t payload = mantissa != 0 ? 0x400000u | (uint32_t)(mantissa >> 29) : 0u;
        return sign | 0x7f800000u | payload;
    }
    exponent += 127 - 1023;
    if (exponent >= 255) {
        return sign | 0x7f800000u;
    }
    if (exponent < -23) { // below half of the smallest subnormal (a subnormal double is, too)
        return sign;
    }
    mantissa |= UINT64_C(1) << 52;
    unsigned shift = exponent > 0 ? 29u : (unsigned)(30 - exponent);
    uint64_t rest = mantissa & ((UINT64_C(1) << shift) - 1);
    uint64_t half = UINT64_C(1) << (shift - 1);
    uint32_t kept = (uint32_t)(mantissa >> shift);
    if (rest > half || (rest == half && (kept & 1u) != 0)) {
        kept++;
    }
    // `kept` holds the hidden bit of a normal number, which adds one to the exponent; a carry does, too.
    return sign | ((exponent > 0 ? (uint32_t)(exponent - 1) << 23 : 0u) + kept);
}

static int read_simple(unsigned ai, uint64_t value, fl_cbor_item_t *item) {
    item->type = FL_CBOR_FLOAT;
    switch (ai) {
    case AI_FALSE:
    case AI_TRUE:
        item->type = FL_CBOR_BOOL;
        item->i = ai == AI_TRUE;
        return FL_OK;
    case AI_NULL:
    case AI_UNDEFINED:
        item->type = FL_CBOR_NULL;
        return FL_OK;
    case AI_F16:
        item->f = f32_of_bits(f32_bits_of_f16((uint32_t)value));
        return FL_OK;
    case AI_F32:
        item->f = f32_of_bits((uint32_t)value);
        return FL_OK;
    case AI_F64:
        item->f = f32_of_bits(f32_bits_of_f64(value));
        return FL_OK;
    case AI_INDEFINITE:
        item->type = FL_CBOR_BREAK;
        return FL_OK;
    default:
        return FL_ENOTSUP;
    }
}

int fl_cbor_next(fl_cbor_t *r, fl_cbor_item_t *item) {
    const uint8_t *at = r->at;
    if (at >= r->end) {
        return FL_EBADMSG;
    }
    unsigned major = *at >> 5;
    unsigned ai = *at & 31u;
    at++;

    uint64_t value = ai;
    if (ai >= 24 && ai <= 27) {
        size_t n = (size_t)1 << (ai - 24);
        if ((size_t)(r->end - at) < n) {
            return FL_EBADMSG;
        }
        value = 0;
        for (size_t i = 0; i < n; i++) {
            value = value << 8 | *at++;
        }
    } else if (ai > 27 && ai != AI_INDEFINITE) {
        return FL_EBADMSG;
    }

    memset(item, 0, sizeof *item);
    size_t left = (size_t)(r->end - at);
    switch (major) {
    case UINT:
    case NINT:
        if (ai == AI_INDEFINITE) {
            return FL_EBADMSG;
        }
        if (value > (uint64_t)INT64_MAX) {
            return FL_ENOTSUP;
        }
        item->type = FL_CBOR_INT;
        item->i = major == UINT ? (int64_t)value : -1 - (int64_t)value;
        break;
    case BYTES:
    case TEXT:
        if (ai == AI_INDEFINITE) {
            return FL_ENOTSUP;
        }
        if (value > left) {
            return FL_EBADMSG;
        }
        item->type = major == BYTES ? FL_CBOR_BYTES : FL_CBOR_TEXT;
        item->ptr = at;
        item->len = (size_t)value;
        at += value;
        break;
    case ARRAY:
    case MAP:
        item->type = major == ARRAY ? FL_CBOR_ARRAY : FL_CBOR_MAP;
        if (ai == AI_INDEFINITE) {
            item->len = FL_CBOR_INDEFINITE;
            break;
        }
        // Every item takes at least one byte: an absurd count is caught before anyone loops over it.
        if (value > (major == ARRAY ? left : left / 2)) {
            return FL_EBADMSG;
        }
        item->len = (size_t)value;
        break;
    case SIMPLE: {
        int rc = read_simple(ai, value, item);
        if (rc != FL_OK) {
            return rc;
        }
        break;
    }
    default:
        return FL_ENOTSUP; // a tag
    }
    r->at = at;
    return FL_OK;
}

static int skip(fl_cbor_t *r, unsigned depth, bool *was_break) {
    fl_cbor_item_t item;
    int rc = fl_cbor_next(r, &item);
    if (rc != FL_OK) {
        return rc;
    }
    *was_break = item.type == FL_CBOR_BREAK;
    if (item.type != FL_CBOR_ARRAY && item.type != FL_CBOR_MAP) {
        return FL_OK;
    }
    if (depth == FL_CBOR_DEPTH) {
        return FL_EBADMSG;
    }
    bool map = item.type == FL_CBOR_MAP;
    for (size_t i = 0; item.len == FL_CBOR_INDEFINITE || i < item.len; i++) {
        bool end;
        rc = skip(r, depth + 1, &end);
        if (rc != FL_OK) {
            return rc;
        }
        if (end) {
            *was_break = false;
            return item.len == FL_CBOR_INDEFINITE ? FL_OK : FL_EBADMSG;
        }
        if (map) {
            rc = skip(r, depth + 1, &end);
            if (rc != FL_OK || end) {
                return rc != FL_OK ? rc : FL_EBADMSG;
            }
        }
    }
    return FL_OK;
}

int fl_cbor_skip(fl_cbor_t *r) {
    fl_cbor_t ahead = *r;
    bool was_break;
    int rc = skip(&ahead, 0, &was_break);
    if (rc == FL_OK && was_break) {
        rc = FL_EBADMSG;
    }
    if (rc == FL_OK) {
        *r = ahead;
    }
    return rc;
}

int fl_cbor_find(const fl_cbor_t *map, const char *key, fl_cbor_t *value) {
    fl_cbor_t r = *map;
    fl_cbor_item_t head;
    int rc = fl_cbor_next(&r, &head);
    if (rc != FL_OK) {
        return rc;
    }
    if (head.type != FL_CBOR_MAP) {
        return FL_EINVAL;
    }
    size_t key_len = strlen(key);
    for (size_t i = 0; head.len == FL_CBOR_INDEFINITE || i < head.len; i++) {
        fl_cbor_t peek = r;
        fl_cbor_item_t item;
        rc = fl_cbor_next(&peek, &item);
        if (rc == FL_OK && item.type == FL_CBOR_BREAK) {
            return head.len == FL_CBOR_INDEFINITE ? FL_ENOENT : FL_EBADMSG;
        }
        if (rc == FL_OK) {
            rc = fl_cbor_skip(&r); // the key
        }
        if (rc != FL_OK) {
            return rc;
        }
        if (item.type == FL_CBOR_TEXT && item.len == key_len && memcmp(item.ptr, key, key_len) == 0) {
            *value = r;
            return FL_OK;
        }
        rc = fl_cbor_skip(&r);
        if (rc != FL_OK) {
            return rc;
        }
    }
    return FL_ENOENT;
}

static int get(const fl_cbor_t *map, const char *key, fl_cbor_item_t *item) {
    fl_cbor_t value;
    int rc = fl_cbor_find(map, key, &value);
    return rc == FL_OK ? fl_cbor_next(&value, item) : rc;
}

int fl_cbor_get_int(const fl_cbor_t *map, const char *key, int64_t *v) {
    fl_cbor_item_t item;
    int rc = get(map, key, &item);
    if (rc == FL_OK && item.type != FL_CBOR_INT) {
        rc = FL_EINVAL;
    }
    if (rc == FL_OK) {
        *v = item.i;
    }
    return rc;
}

int fl_cbor_get_u32(const fl_cbor_t *map, const char *key, uint32_t *v) {
    int64_t wide = 0;
    int rc = fl_cbor_get_int(map, key, &wide);
    if (rc == FL_OK && (wide < 0 || wide > (int64_t)UINT32_MAX)) {
        rc = FL_EINVAL;
    }
    if (rc == FL_OK) {
        *v = (uint32_t)wide;
    }
    return rc;
}

int fl_cbor_get_f32(const fl_cbor_t *map, const char *key, float *v) {
    fl_cbor_item_t item;
    int rc = get(map, key, &item);
    if (rc != FL_OK) {
        return rc;
    }
    if (item.type != FL_CBOR_FLOAT && item.type != FL_CBOR_INT) {
        return FL_EINVAL;
    }
    *v = item.type == FL_CBOR_FLOAT ? item.f : (float)item.i;
    return FL_OK;
}

int fl_cbor_get_bool(const fl_cbor_t *map, const char *key, bool *v) {
    fl_cbor_item_t item;
    int rc = get(map, key, &item);
    if (rc == FL_OK && item.type != FL_CBOR_BOOL) {
        rc = FL_EINVAL;
    }
    if (rc == FL_OK) {
        *v = item.i != 0;
    }
    return rc;
}

int fl_cbor_get_bytes(const fl_cbor_t *map, const char *key, const uint8_t **p, size_t *n) {
    fl_cbor_item_t item;
    int rc = get(map, key, &item);
    if (rc == FL_OK && item.type != FL_CBOR_BYTES) {
        rc = FL_EINVAL;
    }
    if (rc == FL_OK) {
        *p = item.ptr;
        *n = item.len;
    }
    return rc;
}

int fl_cbor_get_text(const fl_cbor_t *map, const char *key, const char **p, size_t *n) {
    fl_cbor_item_t item;
    int rc = get(map, key, &item);
    if (rc == FL_OK && item.type != FL_CBOR_TEXT) {
        rc = FL_EINVAL;
    }
    if (rc == FL_OK) {
        *p = (const char *)item.ptr;
        *n = item.len;
    }
    return rc;
}
