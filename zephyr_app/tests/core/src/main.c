// The core on this board gives the host's bytes: what it predicts, and what it learns.
#include <string.h>
#include <zephyr/ztest.h>

#include "fieldloop/fl_error.h"
#include "fieldloop/fl_learn.h"
#include "fieldloop/fl_model.h"
#include "fieldloop/fl_random.h"

#include "model.h"

#define ARENA_BYTES 4096
#define BLOCK_BYTES 8192

static uint8_t arena[ARENA_BYTES] __aligned(16);
static uint8_t block[BLOCK_BYTES] __aligned(16);
static uint8_t copy[sizeof(data_image)] __aligned(16);
static int8_t inputs[DATA_SAMPLES][DATA_SAMPLE_BYTES];
static fl_model_t model;
static fl_learner_t learner;

static void *setup(void) {
    fl_random_fill(inputs, sizeof(inputs), DATA_SEED);
    return NULL;
}

static void open_model(uint32_t plan) {
    zassert_ok(fl_model_open(&model, data_image, sizeof(data_image)));
    zassert_between_inclusive(fl_model_arena_bytes(&model, plan), 1, ARENA_BYTES, "make ARENA_BYTES larger");
    zassert_ok(fl_model_bind(&model, plan, arena, sizeof(arena)));
}

static void open_learner(void) {
    fl_learner_config_t config;
    open_model(FL_PLAN_LEARN);
    fl_learner_defaults(&config);
    config.lr = DATA_RATE;
    config.replays = DATA_REPLAYS;
    config.memory = DATA_MEMORY;
    zassert_ok(fl_learner_init(&learner, &model, &config, block, sizeof(block)));
}

static void learn(uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; i++) {
        zassert_ok(fl_learner_step(&learner, inputs[i], data_labels[i], NULL));
    }
}

static void predicts_as_the_host(void) {
    for (uint32_t i = 0; i < DATA_SAMPLES; i++) {
        memcpy(fl_model_input(&model, 0), inputs[i], DATA_SAMPLE_BYTES);
        zassert_ok(fl_model_run(&model));
        zassert_mem_equal(fl_model_output(&model, 0), &data_outputs[i * DATA_CLASSES], DATA_CLASSES, "sample %u", i);
    }
}

ZTEST(fieldloop_core, test_predictions_are_the_hosts_bytes) {
    open_model(FL_PLAN_INFER);
    predicts_as_the_host();
}

ZTEST(fieldloop_core, test_the_plan_for_learning_predicts_the_same) {
    open_model(FL_PLAN_LEARN);
    predicts_as_the_host();
}

ZTEST(fieldloop_core, test_learned_state_is_the_hosts_bytes) {
    open_learner();
    learn(0, DATA_SAMPLES);
    zassert_equal(learner.sizes.state_bytes, sizeof(data_state), "state: %u bytes, the host's has %u",
        learner.sizes.state_bytes, (uint32_t)sizeof(data_state));
    zassert_mem_equal(fl_learner_state(&learner), data_state, sizeof(data_state));
}

// The host's state goes on as if it had been learned here.
ZTEST(fieldloop_core, test_a_state_of_the_host_goes_on_here) {
    static uint8_t state[sizeof(data_state)];
    open_learner();
    learn(0, DATA_SAMPLES);
    learn(0, 3);
    memcpy(state, fl_learner_state(&learner), sizeof(state));
    open_learner();
    zassert_ok(fl_learner_load(&learner, data_state, sizeof(data_state)));
    learn(0, 3);
    zassert_mem_equal(fl_learner_state(&learner), state, sizeof(state));
}

ZTEST(fieldloop_core, test_reset_gives_the_factory_weights_back) {
    open_learner();
    learn(0, DATA_SAMPLES);
    fl_learner_reset(&learner);
    predicts_as_the_host();
}

// The CRC covers all of it: a flipped bit anywhere is found, and nothing beyond the image is read.
ZTEST(fieldloop_core, test_a_damaged_image_is_refused) {
    for (uint32_t at = 0; at < sizeof(copy); at += 97) {
        memcpy(copy, data_image, sizeof(copy));
        copy[at] ^= 0x10;
        zassert_not_ok(fl_model_open(&model, copy, sizeof(copy)), "byte %u", at);
    }
    memcpy(copy, data_image, sizeof(copy));
    zassert_equal(fl_model_open(&model, copy, sizeof(copy) - 16), FL_EBADMSG);
    zassert_equal(fl_model_open(&model, copy + 4, sizeof(copy) - 4), FL_EALIGN);
    zassert_ok(fl_model_open(&model, copy, sizeof(copy)));
}

ZTEST_SUITE(fieldloop_core, NULL, setup, NULL, NULL, NULL);
