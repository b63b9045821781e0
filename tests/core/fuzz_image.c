// Mutates images, led by coverage, and opens, runs and trains what comes out, under the sanitizers.
//
//   fuzz_image COUNT SEED FOLDER IMAGE...
//
// A good mutant that takes the core where none was before joins the corpus; it is written to FOLDER, from where a later run
// may take it as an IMAGE. Every image lies in a heap block of exactly its size, every arena in one of exactly the planned
// size: a byte beyond either is a report and an abort. The mutant that was tried last is then in FOLDER/last.flm.
// Prints: mutants, images in the corpus, edges seen, and of the mutants how many were opened, run (of those plans:
// in tiles), trained, refused.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "fieldloop/fl_error.h"
#include "fieldloop/fl_learn.h"
#include "fieldloop/fl_model.h"
#include "fuzz_mutate.h"

enum {
    MAX_ARENA = 1 << 20,
    MAX_CORPUS = 1 << 14,
    MAX_SIZE = 1 << 14,  // of a mutant
    MAP = 1 << 14,
    HANG_SECONDS = 60,
};

typedef struct {
    unsigned long opened, run, tiled, trained, damaged, unsupported, misaligned;
} tally_t;

// ---- coverage: the core is compiled with -fsanitize-coverage=trace-pc, this file is not

static uint8_t edges[MAP];  // how often each pair of blocks ran in this try, saturating
static uint8_t seen[MAP];   // bit of each class of counts
static uintptr_t previous;

void __sanitizer_cov_trace_pc(void);

__attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc(void) {
    const uintptr_t here = (uintptr_t)__builtin_return_address(0);
    const uint32_t h = (uint32_t)((here ^ (previous << 1)) * 0x9e3779b1u) >> 18;
    previous = here;
    edges[h] += edges[h] != 255;
}

static int count_new_edges(void) {
    int found = 0;
    for (size_t i = 0; i < MAP; i += 8) {
        uint64_t any;
        memcpy(&any, edges + i, 8);
        for (size_t k = i; any && k < i + 8; k++) {
            const uint8_t n = edges[k];
            const uint8_t class = n == 0 ? 0 : n == 1 ? 1 : n < 4 ? 2 : n < 32 ? 4 : 8;
            found += (class & ~seen[k]) != 0;
            seen[k] |= class;
        }
    }
    return found;
}

// ---- one image

static const char *folder;
static blob_t mutant;
static volatile unsigned long tried;

static void write_file(const char *path, const blob_t *b) {
    FILE *f = fopen(path, "wb");
    if (f) {
        fwrite(b->bytes, 1, b->size, f);
        fclose(f);
    }
}

static void keep_last(int signal_number) {
    static unsigned long before;
    if (signal_number == SIGVTALRM && tried != before) {
        before = tried;
        signal(SIGVTALRM, keep_last);  // POSIX's own signal() takes one only
        return;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/last.flm", folder);
    write_file(path, &mutant);
    fprintf(stderr, "%s; the image is %s\n", signal_number == SIGVTALRM ? "hangs" : "died", path);
    signal(SIGABRT, SIG_DFL);
    abort();
}

static double visits_of(const fl_model_t *m, uint32_t i) {
    const fl_op_t *op = &m->ops[i];
    const int pools = op->opcode == FL_OP_MAX_POOL || op->opcode == FL_OP_AVG_POOL;
    const double taps = pools ? (double)op->p.conv.kernel_h * op->p.conv.kernel_w : 1;
    const double in = m->tensors[op->in[0]].bytes, out = m->tensors[op->out[0]].bytes;
    return in + out * taps;
}

// Element visits of a run under the bound plan, so that a huge window or a long loop does not stall the fuzzer.
static double cost_of(const fl_model_t *m) {
    double cost = 0;
    for (uint32_t i = 0; i < m->op_count; i++) {
        cost += (m->tiles ? 0 : visits_of(m, i)) + (double)fl_model_op_macs(m, i);
    }
    const fl_plan_step_t *steps = m->tiles ? (const fl_plan_step_t *)(const void *)(m->tiles + 1) : NULL;
    uint32_t left = 0;
    double times = 1;
    for (uint32_t i = 0; steps && i < m->tiles->count; i++) {
        const fl_plan_step_t *s = &steps[i];
        if (s->kind == FL_STEP_LOOP) {
            left = s->op;
            times = s->rows;
            continue;
        }
        cost += times * (s->kind == FL_STEP_COPY ? 20.0 + s->z : 100.0 + visits_of(m, s->op));
        times = left > 0 && --left == 0 ? 1 : times;
    }
    return cost;
}

static void learn(fl_model_t *m, uint32_t label, tally_t *tally) {
    fl_learner_config_t config;
    fl_learner_sizes_t sizes;
    fl_learner_defaults(&config);
    config.memory = 2;
    config.replays = 1;
    if (fl_learner_sizes(m, &config, &sizes) != FL_OK || sizes.total_bytes >= MAX_ARENA) {
        return;
    }
    fl_learner_t *l = malloc(sizeof(*l));
    uint8_t *memory = malloc(sizes.total_bytes);
    int8_t *x = calloc(1, m->tensors[m->io[0]].bytes);
    if (fl_learner_init(l, m, &config, memory, sizes.total_bytes) == FL_OK) {
        fl_learner_step(l, x, label, NULL);
        tally->trained++;
    }
    m->overrides = NULL;
    m->override_count = 0;
    free(x);
    free(memory);
    free(l);
}

static void run_plan(fl_model_t *m, uint32_t kind, tally_t *tally) {
    for (uint32_t variant = FL_KERNELS_PLAIN; variant <= FL_KERNELS_MVE; variant++) {
        if (fl_model_variant_arena_bytes(m, kind, (fl_variant_t)variant) < fl_model_variant_arena_bytes(m, kind, 0)) {
            abort();  // scratch comes on top
        }
    }
    const size_t need = fl_model_arena_bytes(m, kind);
    if (need == 0 || need > MAX_ARENA) {
        return;
    }
    uint8_t *arena = malloc(need);
    if (fl_model_bind(m, kind, arena, need) != FL_OK) {
        abort();
    }
    if (cost_of(m) > (fuzz_below(64) ? 20000 : 400000)) {
        free(arena);
        return;
    }
    for (size_t i = 0; i < need; i++) {
        arena[i] = (uint8_t)fuzz_random();
    }
    // whole, or in two halves
    const uint32_t half = fuzz_below(2) ? 0 : fuzz_below(m->op_count);
    if (fl_model_run_ops(m, 0, half) != FL_OK || fl_model_run_ops(m, half, m->op_count) != FL_OK) {
        abort();
    }
    tally->run++;
    tally->tiled += m->tiles != NULL;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < m->tensor_count; i++) {
        const uint8_t *p = fl_model_tensor(m, i);
        sum += p ? p[0] + p[m->tensors[i].bytes - 1] : 0;
    }
    if (kind == FL_PLAN_LEARN && fuzz_below(4) == 0) {
        learn(m, sum % 3, tally);
    }
    free(arena);
}

// `offset`: bytes off the 16-byte boundary that malloc gives.
static int try_image(const blob_t *b, size_t offset, tally_t *tally) {
    uint8_t *block = malloc(b->size + offset);
    memcpy(block + offset, b->bytes, b->size);
    memset(edges, 0, sizeof edges);
    previous = 0;
    fl_model_t m;
    const int err = fl_model_open(&m, block + offset, b->size);
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
    tried++;
    return err;
}

// ---- the corpus

static blob_t corpus[MAX_CORPUS];
static uint32_t corpus_count;

static blob_t copy_of(const blob_t *b) {
    blob_t c = {malloc(b->size), b->size};
    memcpy(c.bytes, b->bytes, b->size);
    return c;
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
    if (b.size < 16 || b.size > MAX_SIZE) {
        fprintf(stderr, "cannot use %s: expected 16 to %d bytes, got %zu\n", path, MAX_SIZE, b.size);
        exit(2);
    }
    return b;
}

static void add_to_corpus(uint64_t seed) {
    if (corpus_count == MAX_CORPUS) {
        return;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/%llu-%05u.flm", folder, (unsigned long long)seed, corpus_count);
    write_file(path, &mutant);
    corpus[corpus_count++] = copy_of(&mutant);
}

// Half of the time one of those that were found last.
static const blob_t *pick(void) {
    const uint32_t recent = 1 + corpus_count / 4;
    return &corpus[fuzz_below(2) ? fuzz_below(corpus_count) : corpus_count - 1 - fuzz_below(recent)];
}

int main(int argc, char **argv) {
    if (argc < 5 || argc - 4 > MAX_CORPUS) {
        fprintf(stderr, "usage: fuzz_image COUNT SEED FOLDER IMAGE...\n");
        return 2;
    }
    const unsigned long count = strtoul(argv[1], NULL, 10);
    const uint64_t seed = strtoull(argv[2], NULL, 10);
    folder = argv[3];
    fuzz_seed(seed);
    mutant.bytes = malloc(MAX_SIZE);
    signal(SIGABRT, keep_last);
    signal(SIGVTALRM, keep_last);
    const struct itimerval watch = {{HANG_SECONDS, 0}, {HANG_SECONDS, 0}};
    setitimer(ITIMER_VIRTUAL, &watch, NULL);  // the process's own time: a loaded machine is no hang
    tally_t tally = {0};
    for (int i = 4; i < argc; i++) {
        corpus[corpus_count++] = read_file(argv[i]);
        try_image(&corpus[corpus_count - 1], 0, &tally);
        count_new_edges();
    }
    memset(&tally, 0, sizeof(tally));
    for (unsigned long i = 0; i < count; i++) {
        const blob_t *from = pick();
        memcpy(mutant.bytes, from->bytes, from->size);
        mutant.size = from->size;
        fuzz_mutate(&mutant, pick());
        const int err = try_image(&mutant, fuzz_below(64) ? 0 : 1 + fuzz_below(15), &tally);
        if (count_new_edges() > 0 && err == FL_OK) {  // from a refused one nothing good comes
            add_to_corpus(seed);
        }
    }
    unsigned found = 0;
    for (size_t i = 0; i < MAP; i++) {
        found += seen[i] != 0;
    }
    printf("mutants %lu corpus %u edges %u opened %lu run %lu tiled %lu trained %lu damaged %lu unsupported %lu misaligned %lu\n",
           count, corpus_count, found, tally.opened, tally.run, tally.tiled, tally.trained, tally.damaged, tally.unsupported,
           tally.misaligned);
    for (uint32_t i = 0; i < corpus_count; i++) {
        free(corpus[i].bytes);
    }
    free(mutant.bytes);
    return 0;
}
