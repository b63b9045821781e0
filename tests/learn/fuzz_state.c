// Damaged learned states, under the sanitizers: what is refused changes nothing, what is accepted runs and stays finite.
//   fuzz_state IMAGE COUNT SEED
// SEED decides the settings, too: what a weight is kept in, the optimizer, batches.
// Prints how many mutated states were accepted and how many refused.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_learn.h"

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

// Unaligned on purpose: bytes from a link lie anywhere.
static uint8_t *mutated(const uint8_t *state, size_t bytes, uint8_t *buffer) {
    static const uint32_t interesting[] = {0, 1, 0x7f, 0x80, 0xffff, 0x7f800000, 0x7fc00000, 0xff800000, 0x80000000,
                                           0x7fffffff, 0xffffffff};
    uint8_t *at = buffer + next() % 4;
    memcpy(at, state, bytes);
    for (uint32_t n = 1 + next() % 4; n-- > 0;) {
        // half of the damage goes to the header, the maxima and the layers' counters behind it
        size_t place = next() % (next() % 2 ? bytes : 200);
        switch (next() % 3) {
        case 0:
            at[place] ^= (uint8_t)(1u << next() % 8);
            break;
        case 1:
            at[place] = (uint8_t)next();
            break;
        default:
            place &= ~(size_t)3;
            if (place + 4 <= bytes) {
                memcpy(at + place, &interesting[next() % (sizeof interesting / 4)], 4);
            }
            break;
        }
    }
    return at;
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
    size_t image_bytes = (size_t)ftell(file);
    rewind(file);
    void *image = aligned(image_bytes);
    if (fread(image, 1, image_bytes, file) != image_bytes) {
        return 2;
    }
    fclose(file);
    random_state = strtoull(argv[3], NULL, 10);

    fl_model_t m;
    fl_learner_t l;
    fl_learner_config_t config;
    fl_learner_sizes_t sizes;
    fl_learner_defaults(&config);
    config.memory = 6;
    config.replays = 2;
    config.lr = 10.0f;
    uint32_t mode = (uint32_t)random_state;
    config.weights = mode % 3;
    config.optimizer = mode / 3 % 3;
    config.batch = 1 + mode / 9 % 2 * 2;
    config.selector = mode % 2 ? FL_SELECT_LOSS : FL_SELECT_TINYPROPV2;
    size_t model_bytes;
    if (fl_model_open(&m, image, image_bytes) || !(model_bytes = fl_model_arena_bytes(&m, FL_PLAN_LEARN)) ||
        fl_learner_sizes(&m, &config, &sizes)) {
        return 2;
    }
    // exactly the bytes asked for, so that one too many is seen
    void *model_arena = malloc(model_bytes);
    void *arena = malloc(sizes.total_bytes);
    if (!arena || !model_arena || fl_model_bind(&m, FL_PLAN_LEARN, model_arena, model_bytes) ||
        fl_learner_init(&l, &m, &config, arena, sizes.total_bytes)) {
        return 2;
    }
    uint32_t sample_bytes = fl_model_input_info(&m, 0)->bytes;
    int8_t *x = malloc(sample_bytes);
    uint8_t *good = malloc(sizes.state_bytes);
    uint8_t *buffer = malloc(sizes.state_bytes + 8);
    uint8_t *before = malloc(sizes.state_bytes);
    if (!x || !good || !buffer || !before) {
        return 2;
    }
    unsigned accepted = 0, refused = 0;
    for (long i = 0; i < strtol(argv[2], NULL, 10); i++) {
        if (i % 50 == 0) {  // a new honest state now and then
            fl_learner_reset(&l);
            for (int step = 0; step < 10; step++) {
                for (uint32_t j = 0; j < sample_bytes; j++) {
                    x[j] = (int8_t)next();
                }
                if (fl_learner_step(&l, x, next() % l.classes, NULL)) {
                    return 1;
                }
            }
            memcpy(good, fl_learner_state(&l), sizes.state_bytes);
        }
        size_t bytes = next() % 8 ? sizes.state_bytes : next() % (sizes.state_bytes + 1);
        uint8_t *state = mutated(good, sizes.state_bytes, buffer);
        memcpy(before, fl_learner_state(&l), sizes.state_bytes);
        if (fl_learner_load(&l, state, bytes)) {
            refused++;
            if (memcmp(before, fl_learner_state(&l), sizes.state_bytes) != 0) {
                printf("a refused state changed the learner\n");
                return 1;
            }
            continue;
        }
        accepted++;
        for (int step = 0; step < 2; step++) {
            if (fl_learner_step(&l, x, next() % l.classes, NULL)) {
                return 1;
            }
        }
        fl_learner_flush(&l);
        // a state of its own making is always one that it takes
        memcpy(before, fl_learner_state(&l), sizes.state_bytes);
        if (fl_learner_load(&l, before, sizes.state_bytes)) {
            printf("a learner does not take its own state\n");
            return 1;
        }
    }
    printf("%u %u\n", accepted, refused);
    free(image), free(model_arena), free(arena), free(x), free(good), free(buffer), free(before);
    return 0;
}
