// Damaged images, CRC put right, under the sanitizers: a learner on them is refused or learns, and never faults.
//   fuzz_image IMAGE COUNT SEED
// Prints how many mutated images opened, and on how many of them a learner ran.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_error.h"
#include "fieldloop/fl_learn.h"

enum { LARGEST_ARENA = 1 << 22 };

static uint64_t random_state;

static uint32_t next(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static void *aligned(size_t bytes) {
    void *p = aligned_alloc(16, (bytes + 15) & ~(size_t)15);
    if (!p) {
        exit(2);
    }
    return p;
}

static void damage(uint8_t *image, size_t bytes) {
    static const uint32_t interesting[] = {0,      1,          2,          3,          0x7f,      0xffff,
                                           0x10000, 0x7f7fffff, 0x00800000, 0x7e967699, 0x7fffffff, 0xffffffff};
    for (uint32_t n = 1 + next() % 2; n-- > 0;) {
        // tables come first and matter most
        size_t place = next() % (next() % 4 ? bytes / 2 : bytes);
        if (next() % 2) {
            image[place] = (uint8_t)(next() % 2 ? next() % 12 : next());
        } else {
            memcpy(image + (place & ~(size_t)3), &interesting[next() % (sizeof interesting / 4)], 4);
        }
    }
    uint32_t crc = fl_crc32(0, image + FL_IMAGE_CRC_FROM, bytes - FL_IMAGE_CRC_FROM);
    memcpy(image + offsetof(fl_image_header_t, crc32), &crc, sizeof crc);
}

// Any settings that are not refused as such.
static void choose(fl_learner_config_t *c) {
    do {
        fl_learner_defaults(c);
        c->selector = next() % 8;
        c->skip = next() % 3;
        c->unit = next() % 2;
        c->rank = next() % 2;
        c->search = next() % 4;
        c->bias_mode = next() % 2;
        c->k_rule = next() % 2;
        c->deltas = next() % 2;
        c->weights = next() % 3;
        c->optimizer = next() % 3;
        c->layers = next() % 3;
        c->floor = 1 + next() % 3;
        c->batch = 1 + next() % 2 * (next() % 3);
        c->zeta = 1.0f;
        c->memory = next() % 4;
        c->replays = 1;
        c->holdout = next() % 2 * 2;
        c->d_thr = 0.0f;
        for (uint32_t i = 0; i < FL_MAX_TRAINABLE; i++) {
            c->mask[i] = (uint8_t)next();
        }
    } while (fl_learner_complaint(c));
}

// 1: learned, 0: refused.
static int learn(fl_model_t *m) {
    fl_learner_t l;
    fl_learner_config_t config;
    fl_learner_sizes_t sizes;
    choose(&config);
    size_t model_bytes = fl_model_arena_bytes(m, FL_PLAN_LEARN);
    if (model_bytes == 0 || model_bytes > LARGEST_ARENA || fl_learner_sizes(m, &config, &sizes) ||
        sizes.total_bytes > LARGEST_ARENA) {
        return 0;
    }
    void *model_arena = malloc(model_bytes);
    void *arena = malloc(sizes.total_bytes);
    uint32_t sample_bytes = fl_model_input_info(m, 0)->bytes;
    int8_t *x = malloc(sample_bytes);
    if (!x || !arena || !model_arena || fl_model_bind(m, FL_PLAN_LEARN, model_arena, model_bytes) ||
        fl_learner_init(&l, m, &config, arena, sizes.total_bytes)) {
        exit(1);
    }
    memset(model_arena, 0, model_bytes);
    for (int step = 0; step < 3; step++) {
        for (uint32_t j = 0; j < sample_bytes; j++) {
            x[j] = (int8_t)next();
        }
        if (fl_learner_step(&l, x, next() % l.classes, NULL)) {
            exit(1);
        }
    }
    fl_learner_flush(&l);
    uint32_t right, total;
    if (fl_learner_evaluate(&l, &right, &total) || right > total) {
        exit(1);
    }
    free(model_arena), free(arena), free(x);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        return 2;
    }
    FILE *file = fopen(argv[1], "rb");
    if (!file) {
        return 2;
    }
    fseek(file, 0, SEEK_END);
    size_t bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *good = aligned(bytes), *image = aligned(bytes);
    if (fread(good, 1, bytes, file) != bytes) {
        return 2;
    }
    fclose(file);
    random_state = strtoull(argv[3], NULL, 10);
    unsigned opened = 0, learned = 0;
    for (long i = 0; i < strtol(argv[2], NULL, 10); i++) {
        memcpy(image, good, bytes);
        damage(image, bytes);
        fl_model_t m;
        if (fl_model_open(&m, image, bytes) == FL_OK) {
            opened++;
            learned += (unsigned)learn(&m);
        }
    }
    printf("%u %u\n", opened, learned);
    free(good), free(image);
    return 0;
}
