// Mutations that know an image's structure: a flipped bit in a table of numbers is refused at once; what reaches the
// executor is an image whose other parts were brought into line.
#include "fuzz_mutate.h"

#include <string.h>

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_image.h"

enum { MAX_TENSOR = 1 << 16 };  // bytes; larger ones are left as they are

static uint64_t state;

void fuzz_seed(uint64_t seed) {
    state = seed * 2654435769u + 88172645463325252ull;
}

uint32_t fuzz_random(void) {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717ull) >> 32);
}

uint32_t fuzz_below(uint32_t n) {
    return n ? fuzz_random() % n : 0;
}

static uint32_t get(const uint8_t *p, uint32_t width) {
    uint32_t v = 0;
    memcpy(&v, p, width);
    return v;
}

static void put(uint8_t *p, uint32_t value, uint32_t width) {
    memcpy(p, &value, width);
}

static uint32_t interesting(const blob_t *b, uint32_t now) {
    static const uint32_t values[] = {0,          1,          2,          16,         0x7f,       0x80,       0xff,
                                      0x7fff,     0x8000,     0xffff,     0x10000,    0x3fffffff, 0x40000000, 0x7fffffff,
                                      0x80000000, 0xffffffff, 0xfffffff0, 0x7f800000, 0x7fc00000, 0xff800000};
    switch (fuzz_below(8)) {
    case 0:
        return values[fuzz_below(sizeof(values) / sizeof(values[0]))];
    case 1:
        return now + 1;
    case 2:
        return now - 1;
    case 3:
        return now ^ (1u << fuzz_below(32));
    case 4:
        return (uint32_t)b->size - fuzz_below(64);
    case 5:
    case 6:
        return fuzz_below(9);
    default:
        return get(b->bytes + 4 * fuzz_below((uint32_t)b->size / 4), 4);
    }
}

// The nth section of a type: its bytes inside the blob, or NULL.
static uint8_t *section(const blob_t *b, uint32_t type, uint32_t nth, uint32_t *bytes) {
    if (b->size < sizeof(fl_image_header_t)) {
        return NULL;
    }
    const uint32_t count = get(b->bytes + 32, 4);
    for (uint32_t i = 0; i < count && 64 + 16 * (size_t)i + 16 <= b->size; i++) {
        const uint8_t *row = b->bytes + 64 + 16 * (size_t)i;
        const uint32_t offset = get(row + 8, 4);
        *bytes = get(row + 12, 4);
        if (get(row, 4) == type && nth-- == 0) {
            return offset <= b->size && *bytes <= b->size - offset && offset % 4 == 0 ? b->bytes + offset : NULL;
        }
    }
    return NULL;
}

// A place in the header, the section table, or (mostly) a section that is not DATA or META.
static size_t structural_place(const blob_t *b) {
    const uint32_t sections = b->size < 64 ? 0 : get(b->bytes + 32, 4);
    const uint32_t pick = fuzz_below(16);
    if (pick == 0 || sections == 0 || sections > 32) {
        return fuzz_below(64);
    }
    if (pick == 1) {
        return 64 + fuzz_below(16 * sections);
    }
    const size_t at = 64 + 16 * (size_t)fuzz_below(sections);
    if (at + 16 > b->size) {
        return fuzz_below((uint32_t)b->size);
    }
    const uint8_t *row = b->bytes + at;
    const uint32_t type = get(row, 4), offset = get(row + 8, 4), bytes = get(row + 12, 4);
    if (offset >= b->size || type == FL_SECTION_META || (type == FL_SECTION_DATA && fuzz_below(4))) {
        return fuzz_below((uint32_t)b->size);
    }
    return offset + fuzz_below(bytes);
}

static void truncate_blob(blob_t *b) {
    b->size = fuzz_below(2) ? b->size & ~(size_t)15 : b->size;
    b->size -= fuzz_below((uint32_t)b->size / 4);
    if (fuzz_below(8) == 0) {
        b->size = fuzz_below(80) < b->size ? fuzz_below(80) : b->size;
    }
    b->size = b->size < 16 ? 16 : b->size;
    if (fuzz_below(2)) {
        b->size &= ~(size_t)15;
        put(b->bytes + 8, (uint32_t)b->size, 4);
    }
}

// A whole operator, tensor or step (behind `skip` bytes) from the same table of `other`, or one of its fields anew.
static void change_record(blob_t *b, const blob_t *other, uint32_t type, uint32_t record, uint32_t skip) {
    uint32_t bytes, other_bytes;
    uint8_t *table = section(b, type, fuzz_below(4) == 0, &bytes);
    uint8_t *source = section(other, type, 0, &other_bytes);
    if (!table || bytes < record + skip) {
        return;
    }
    table += skip;
    bytes -= skip;
    if (source && other_bytes > skip) {
        source += skip;
        other_bytes -= skip;
    }
    uint8_t *to = table + record * fuzz_below(bytes / record);
    if (source && other_bytes >= record && fuzz_below(3) == 0) {
        const uint8_t *from = source + record * fuzz_below(other_bytes / record);
        const uint32_t part = fuzz_below(3) ? record : record / 2;  // without the parameters
        memmove(to, from, part);
        return;
    }
    const uint32_t width = fuzz_below(2) ? 2 : 4;
    uint8_t *field = to + width * fuzz_below(record / width);
    put(field, interesting(b, get(field, width)), width);
}

// A field of a step, as wide as it is: a little more or less, another step's, or anything.
static void change_step(blob_t *b) {
    // bytes 0, 1: u8; up to 32: u16; places; i16 up to 52; i32
    static const uint8_t fields[] = {0,  1,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26,
                                     28, 30, 32, 36, 40, 44, 46, 48, 52, 56, 60, 32, 36, 40, 1};
    uint32_t bytes;
    uint8_t *steps = section(b, FL_SECTION_TILES, fuzz_below(4) == 0, &bytes);
    if (!steps || bytes < sizeof(fl_tiles_t) + sizeof(fl_plan_step_t)) {
        return;
    }
    steps += sizeof(fl_tiles_t);
    const uint32_t count = (bytes - (uint32_t)sizeof(fl_tiles_t)) / (uint32_t)sizeof(fl_plan_step_t);
    uint8_t *step = steps + sizeof(fl_plan_step_t) * fuzz_below(count);
    uint8_t *other = steps + sizeof(fl_plan_step_t) * fuzz_below(count);
    const uint32_t at = fields[fuzz_below(sizeof fields)];
    const uint32_t width = at < 2 ? 1 : at < 32 ? 2 : at < 44 ? 4 : at < 50 ? 2 : 4;
    const uint32_t now = get(step + at, width);
    switch (fuzz_below(10)) {
    case 0:
    case 1:
        put(step + at, now + 1, width);
        break;
    case 2:
    case 3:
        put(step + at, now - 1, width);
        break;
    case 4:
        memcpy(step + at, other + at, width);
        break;
    case 5: {  // a place of the same step
        static const uint8_t places[] = {32, 36, 40};
        memcpy(step + places[fuzz_below(3)], step + places[fuzz_below(3)], 4);
        break;
    }
    case 6: {  // two steps change places, or one is there twice
        uint8_t copy[sizeof(fl_plan_step_t)];
        memcpy(copy, step, sizeof copy);
        memmove(step, other, sizeof copy);
        if (fuzz_below(2)) {
            memcpy(other, copy, sizeof copy);
        }
        break;
    }
    case 7:
        put(step + at, now + 4 * (fuzz_below(9) - 4), width);
        break;
    case 8:  // box and input alike
        put(step + at, now ^ 1, width);
        put(step + (at ^ 8), get(step + (at ^ 8), width) ^ 1, width);
        break;
    default:
        put(step + at, interesting(b, now), width);
        break;
    }
}

// A dimension of a tensor, or two that keep their product, or its dtype.
static void change_shape(blob_t *b) {
    uint32_t bytes;
    uint8_t *table = section(b, FL_SECTION_TENSORS, 0, &bytes);
    if (!table || bytes < sizeof(fl_tensor_t)) {
        return;
    }
    uint8_t *t = table + sizeof(fl_tensor_t) * fuzz_below(bytes / (uint32_t)sizeof(fl_tensor_t));
    uint8_t *dim = t + 4 + 4 * fuzz_below(4);
    uint8_t *next = t + 4 + 4 * fuzz_below(4);
    const uint32_t was = get(dim, 4), other = get(next, 4);
    switch (fuzz_below(6)) {
    case 0:
        put(dim, 1 + fuzz_below(8), 4);
        break;
    case 1:
        put(dim, other, 4);
        put(next, was, 4);
        break;
    case 2:
        put(dim, was * 2, 4);
        break;
    case 3:
        t[2] = (uint8_t)(1 + fuzz_below(4));
        break;
    case 4:
        t[0] = (uint8_t)fuzz_below(4);
        break;
    default:
        put(dim, was + 1, 4);
        break;
    }
}

static void change(blob_t *b, const blob_t *other) {
    size_t at = structural_place(b);
    at = at < b->size ? at : b->size - 1;
    switch (fuzz_below(20)) {
    case 0:  // flip a bit
        b->bytes[at] ^= (uint8_t)(1u << fuzz_below(8));
        break;
    case 1:  // any byte
        b->bytes[at] = (uint8_t)fuzz_random();
        break;
    case 2: {  // splice: a piece of another image, or of this one, at any place
        const blob_t *from = fuzz_below(2) ? other : b;
        size_t n = 1 + fuzz_below(64), start = fuzz_below((uint32_t)from->size);
        n = n < from->size - start ? n : from->size - start;
        n = n < b->size - at ? n : b->size - at;
        memmove(b->bytes + at, from->bytes + start, n);
        break;
    }
    case 3:
        if (fuzz_below(4) == 0) {
            truncate_blob(b);
            break;
        }
        // fall through
    case 4:
    case 5:  // a 32-bit field
        at &= ~(size_t)3;
        if (at + 4 <= b->size) {
            put(b->bytes + at, interesting(b, get(b->bytes + at, 4)), 4);
        }
        break;
    case 6:
    case 7:  // a 16-bit field
        at &= ~(size_t)1;
        if (at + 2 <= b->size) {
            put(b->bytes + at, interesting(b, get(b->bytes + at, 2)), 2);
        }
        break;
    case 8:
    case 9:
    case 10:
        change_record(b, other, FL_SECTION_OPERATORS, sizeof(fl_op_t), 0);
        break;
    case 11:
        change_record(b, other, FL_SECTION_TENSORS, sizeof(fl_tensor_t), 0);
        break;
    case 12:
        change_record(b, other, FL_SECTION_TILES, sizeof(fl_plan_step_t), sizeof(fl_tiles_t));
        break;
    case 13:
    case 14:
    case 15:
    case 16:
    case 17:
        change_step(b);
        break;
    default:
        change_shape(b);
        break;
    }
}

// Is there a section of tiles for a plan of this kind?
static int is_tiled(const blob_t *b, uint32_t kind) {
    uint32_t bytes;
    for (uint32_t nth = 0; nth < 2; nth++) {
        const uint8_t *tiles = section(b, FL_SECTION_TILES, nth, &bytes);
        if (tiles && bytes >= sizeof(fl_tiles_t) && get(tiles, 4) == kind) {
            return 1;
        }
    }
    return 0;
}

// Sizes follow from shapes, and every activation gets a place of its own; where steps name the places, they stay.
static void repair(blob_t *b) {
    uint32_t bytes, plan_bytes;
    uint8_t *table = section(b, FL_SECTION_TENSORS, 0, &bytes);
    if (!table) {
        return;
    }
    const uint32_t count = bytes / (uint32_t)sizeof(fl_tensor_t);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *t = table + i * sizeof(fl_tensor_t);
        uint64_t size = t[0] == FL_I8 || t[0] == FL_U8 ? 1 : 4;
        for (uint32_t k = 0; k < 4; k++) {
            size = size <= MAX_TENSOR ? size * get(t + 4 + 4 * k, 4) : size;
        }
        if (size > 0 && size <= MAX_TENSOR) {
            put(t + 20, (uint32_t)size, 4);
        }
    }
    for (uint32_t nth = 0; nth < 2; nth++) {
        uint8_t *plan = section(b, FL_SECTION_PLAN, nth, &plan_bytes);
        if (!plan || plan_bytes != sizeof(fl_plan_t) + 4 * (uint64_t)count || is_tiled(b, get(plan, 4))) {
            continue;
        }
        uint32_t at = 0, end = 0;
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *t = table + i * sizeof(fl_tensor_t);
            put(plan + sizeof(fl_plan_t) + 4 * i, t[1] == FL_CONSTANT ? 0xffffffffu : at, 4);
            if (t[1] != FL_CONSTANT) {
                end = at + get(t + 20, 4);
                at = (end + 3) & ~3u;
            }
        }
        put(plan + 4, end, 4);
    }
}

static void fix_crc(blob_t *b) {
    uint32_t total = b->size < 16 ? 0 : get(b->bytes + 8, 4);
    total = total < b->size ? total : (uint32_t)b->size;
    if (total >= 16) {
        put(b->bytes + 12, fl_crc32(0, b->bytes + 16, total - 16), 4);
    }
}

void fuzz_mutate(blob_t *b, const blob_t *other) {
    for (uint32_t n = 1 + fuzz_below(3); n > 0; n--) {
        change(b, other);
    }
    if (fuzz_below(4)) {
        repair(b);
    }
    if (fuzz_below(16)) {
        fix_crc(b);
    }
}
