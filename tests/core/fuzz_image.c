// Mutates good images and opens, runs and trains what comes out, under the sanitizers.
//
//   fuzz_image COUNT SEED IMAGE...
//
// Most mutants get their CRC fixed, so that they reach the checks behind it. Every image lies in a heap block of exactly
// its size, every arena in one of exactly the planned size: a byte beyond either is a report and an abort.
// Prints: mutants, of these opened, run, trained, and refused by each error.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_error.h"
#include "fieldloop/fl_learn.h"
#include "fieldloop/fl_model.h"

enum { MAX_ARENA = 1 << 20, MAX_COST = 200000 };

typedef struct {
    uint8_t *bytes;
    size_t size;
} blob_t;

typedef struct {
    unsigned long opened, run, trained, damaged, unsupported, misaligned;
} tally_t;

static uint64_t state;

static uint32_t random_u32(void) {  // xorshift64*
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717ull) >> 32);
}

static uint32_t below(uint32_t n) {
    return n ? random_u32() % n : 0;
}

static uint32_t get(const uint8_t *p, uint32_t width) {
    uint32_t v = 0;
    memcpy(&v, p, width);
    return v;
}

static uint32_t interesting(const blob_t *b, uint32_t now) {
    static const uint32_t values[] = {0,          1,          2,          16,         0x7f,       0x80,       0xff,
                                      0x7fff,     0x8000,     0xffff,     0x10000,    0x3fffffff, 0x40000000, 0x7fffffff,
                                      0x80000000, 0xffffffff, 0xfffffff0, 0x7f800000, 0x7fc00000, 0x00000001};
    switch (below(6)) {
    case 0:
        return values[below(sizeof(values) / sizeof(values[0]))];
    case 1:
        return now + 1;
    case 2:
        return now - 1;
    case 3:
        return now ^ (1u << below(32));
    case 4:
        return (uint32_t)b->size - below(64);
    default:
        return get(b->bytes + 4 * below((uint32_t)b->size / 4), 4);
    }
}

// A place in the header, the section table, or (mostly) a section that is not DATA or META.
static size_t structural_place(const blob_t *b) {
    uint32_t sections = get(b->bytes + 48, 4);
    uint32_t pick = below(8);
    if (pick == 0 || sections == 0 || sections > 32) {
        return below(64);
    }
    if (pick == 1) {
        return 64 + below(16 * sections);
    }
    const uint8_t *row = b->bytes + 64 + 16 * (size_t)below(sections);
    if (row + 16 > b->bytes + b->size) {
        return below((uint32_t)b->size);
    }
    uint32_t type = get(row, 4), offset = get(row + 8, 4), bytes = get(row + 12, 4);
    if (offset >= b->size || type == FL_SECTION_META || (type == FL_SECTION_DATA && below(4))) {
        return below((uint32_t)b->size);
    }
    return offset + below(bytes);
}

static void mutate(blob_t *b, const blob_t *other) {
    size_t at = structural_place(b);
    at = at < b->size ? at : b->size - 1;
    switch (below(8)) {
    case 0:  // flip a bit
        b->bytes[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:  // any byte
        b->bytes[at] = (uint8_t)random_u32();
        break;
    case 2: {  // splice: a piece of another image, or of this one, at any place
        const blob_t *from = below(2) ? other : b;
        size_t n = 1 + below(64), start = below((uint32_t)from->size);
        n = n < from->size - start ? n : from->size - start;
        n = n < b->size - at ? n : b->size - at;
        memmove(b->bytes + at, from->bytes + start, n);
        break;
    }
    case 3:  // truncate
        if (below(4) == 0) {
            b->size = below(2) ? b->size & ~(size_t)15 : b->size;
            b->size -= below((uint32_t)b->size / 4);
            if (below(8) == 0) {
                b->size = below(80);
            }
            b->size = b->size < 16 ? 1 + below(15) : b->size;
            if (b->size >= 16 && below(2)) {
                b->size &= ~(size_t)15;
                uint32_t total = (uint32_t)b->size;
                memcpy(b->bytes + 8, &total, 4);
            }
            break;
        }
        // fall through
    case 4:
    case 5: {  // a 32-bit field
        at &= ~(size_t)3;
        if (at + 4 <= b->size) {
            uint32_t v = interesting(b, get(b->bytes + at, 4));
            memcpy(b->bytes + at, &v, 4);
        }
        break;
    }
    default: {  // a 16-bit field
        at &= ~(size_t)1;
        if (at + 2 <= b->size) {
            uint16_t v = (uint16_t)interesting(b, get(b->bytes + at, 2));
            memcpy(b->bytes + at, &v, 2);
        }
        break;
    }
    }
}

static void fix_crc(blob_t *b) {
    uint32_t total = b->size < 16 ? 0 : get(b->bytes + 8, 4);
    total = total < b->size ? total : (uint32_t)b->size;
    if (total >= 16) {
        uint32_t crc = fl_crc32(0, b->bytes + 16, total - 16);
        memcpy(b->bytes + 12, &crc, 4);
    }
}

// Element visits of a run, so that a huge window does not stall the fuzzer.
static double cost_of(const fl_model_t *m) {
    double cost = 0;
    for (uint32_t i = 0; i < m->op_count; i++) {
        const fl_op_t *op = &m->ops[i];
        double taps = op->opcode == FL_OP_MAX_POOL || op->opcode == FL_OP_AVG_POOL
                          ? (double)op->p.conv.kernel_h * op->p.conv.kernel_w
                          : 1;
        cost += (double)m->tensors[op->out[0]].bytes * taps + (double)fl_model_op_macs(m, i);
    }
    return cost;
}

static void run_plan(fl_model_t *m, uint32_t kind, tally_t *tally) {
    size_t need = fl_model_arena_bytes(m, kind);
    if (need == 0 || need > MAX_ARENA || cost_of(m) > MAX_COST) {
        return;
    }
    uint8_t *arena = malloc(need);
    if (fl_model_bind(m, kind, arena, need) != FL_OK) {
        abort();
    }
    for (size_t i = 0; i < need; i++) {
        arena[i] = (uint8_t)random_u32();
    }
    if (fl_model_run(m) != FL_OK) {
        abort();
    }
    tally->run++;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < m->tensor_count; i++) {
        const uint8_t *p = fl_model_tensor(m, i);
        sum += p[0] + p[m->tensors[i].bytes - 1];
    }
    fl_learner_config_t config;
    fl_learner_sizes_t sizes;
    fl_learner_defaults(&config);
    config.memory = 2;
    config.replays = 1;
    if (kind == FL_PLAN_LEARN && below(4) == 0 && fl_learner_sizes(m, &config, &sizes) == FL_OK &&
        sizes.total_bytes < MAX_ARENA) {
        fl_learner_t *l = malloc(sizeof(*l));
        uint8_t *memory = malloc(sizes.total_bytes);
        int8_t *x = calloc(1, m->tensors[m->io[0]].bytes);
        if (fl_learner_init(l, m, &config, memory, sizes.total_bytes) == FL_OK) {
            fl_learner_step(l, x, sum % 3, NULL);
            tally->trained++;
        }
        m->overrides = NULL;
        m->override_count = 0;
        free(x);
        free(memory);
        free(l);
    }
    free(arena);
}

// `offset`: bytes off the 16-byte boundary that malloc gives.
static void try_image(const blob_t *b, size_t offset, tally_t *tally) {
    uint8_t *block = malloc(b->size + offset);
    memcpy(block + offset, b->bytes, b->size);
    fl_model_t m;
    int err = fl_model_open(&m, block + offset, b->size);
    if (err == FL_OK) {
        tally->opened++;
        if (offset) {
            abort();
        }
        run_plan(&m, FL_PLAN_INFER, tally);
        run_plan(&m, FL_PLAN_LEARN, tally);
    } else if (err == FL_EBADMSG) {
        tally->damaged++;
    } else if (err == FL_ENOTSUP) {
        tally->unsupported++;
    } else if (err == FL_EALIGN && offset) {
        tally->misaligned++;
    } else {
        fprintf(stderr, "unexpected result %d\n", err);
        abort();
    }
    free(block);
}

static blob_t read_file(const char *path) {
    blob_t b = {NULL, 0};
    FILE *f = fopen(path, "rb");
    if (f) {
        fseek(f, 0, SEEK_END);
        b.size = (size_t)ftell(f);
        rewind(f);
        b.bytes = malloc(b.size);
        if (fread(b.bytes, 1, b.size, f) != b.size) {
            b.size = 0;
        }
        fclose(f);
    }
    if (b.size < 64) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    return b;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: fuzz_image COUNT SEED IMAGE...\n");
        return 2;
    }
    const unsigned long count = strtoul(argv[1], NULL, 10);
    state = strtoull(argv[2], NULL, 10) * 2654435769u + 88172645463325252ull;
    const uint32_t images = (uint32_t)argc - 3;
    blob_t *good = malloc(images * sizeof(*good));
    size_t largest = 0;
    tally_t tally = {0};
    for (uint32_t i = 0; i < images; i++) {
        good[i] = read_file(argv[3 + i]);
        largest = good[i].size > largest ? good[i].size : largest;
        try_image(&good[i], 0, &tally);
    }
    if (tally.opened != images) {
        fprintf(stderr, "a good image was refused\n");
        return 2;
    }
    memset(&tally, 0, sizeof(tally));
    blob_t mutant = {malloc(largest), 0};
    for (unsigned long i = 0; i < count; i++) {
        const blob_t *from = &good[below(images)];
        memcpy(mutant.bytes, from->bytes, from->size);
        mutant.size = from->size;
        for (uint32_t n = 1 + below(3); n > 0; n--) {
            mutate(&mutant, &good[below(images)]);
        }
        if (below(16)) {
            fix_crc(&mutant);
        }
        try_image(&mutant, below(64) ? 0 : 1 + below(15), &tally);
    }
    printf("mutants %lu opened %lu run %lu trained %lu damaged %lu unsupported %lu misaligned %lu\n", count,
           tally.opened, tally.run, tally.trained, tally.damaged, tally.unsupported, tally.misaligned);
    for (uint32_t i = 0; i < images; i++) {
        free(good[i].bytes);
    }
    free(good);
    free(mutant.bytes);
    return 0;
}
