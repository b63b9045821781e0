// Bare metal: learns the samples of a case and tells what each step executed.
//
// QEMU puts the case into external memory before the start: case_t, image, configuration, labels, samples; the model's arena
// and the learner's block lie behind them.
//
//   step INSTRUCTIONS TRAINED [FORWARD SELECT PROPAGATE GRADIENT UPDATE]   one line a sample
//   state CRC-32 STACK
//
// The parts are only there with -DPARTS: the linker then sends the calls of each group through a wrapper (-Wl,--wrap),
// which costs a few instructions a call.
#include <stdio.h>
#include <string.h>

#include "../kernel_harness/counter.h"
#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_learn.h"

enum { CASE_MAGIC = 0x434c4c46, STACK_PROBE = 8192 };

typedef struct {
    uint32_t magic;
    uint32_t image_from, image_bytes;  // from the case's start
    uint32_t config_from, labels_from, samples_from;
    uint32_t count, sample_bytes;
    uint32_t arena_from;
    uint32_t reserved[7];
} case_t;

#ifdef PARTS
#include "fieldloop/fl_backward_q.h"
#include "fieldloop/fl_select.h"

enum { FORWARD, SELECT, PROPAGATE, GRADIENT, UPDATE, PARTS_COUNT };
static uint32_t part_ticks[PARTS_COUNT];

// The wrapper of a function of that type, parameters and arguments; its time goes to a part.
#define WRAP(part, type, name, parameters, arguments)                \
    type __real_##name parameters;                                   \
    type __wrap_##name parameters;                                   \
    type __wrap_##name parameters {                                  \
        const uint32_t start = COUNTER;                              \
        const type result = __real_##name arguments;                 \
        part_ticks[part] += COUNTER - start;                         \
        return result;                                               \
    }
#define WRAP_VOID(part, name, parameters, arguments)                 \
    void __real_##name parameters;                                   \
    void __wrap_##name parameters;                                   \
    void __wrap_##name parameters {                                  \
        const uint32_t start = COUNTER;                              \
        __real_##name arguments;                                     \
        part_ticks[part] += COUNTER - start;                         \
    }

WRAP(FORWARD, int, fl_model_run_ops, (fl_model_t * m, uint32_t a, uint32_t b), (m, a, b))
WRAP(SELECT, float, fl_l1_norm, (const float *delta, uint32_t n), (delta, n))
WRAP(SELECT, uint32_t, fl_q_l1, (const int32_t *delta, uint32_t n), (delta, n))
WRAP(SELECT, fl_cut_t, fl_select_cut, (const fl_ranking_t *r, uint32_t k, uint32_t search, uint16_t *heap),
     (r, k, search, heap))
WRAP(SELECT, uint32_t, fl_keep_count, (const fl_ratio_t *r, float alpha, uint32_t distance, uint32_t n),
     (r, alpha, distance, n))
WRAP_VOID(SELECT, fl_list_kept,
          (const fl_ranking_t *r, const fl_cut_t *cut, uint32_t positions, uint32_t channels, uint16_t *list),
          (r, cut, positions, channels, list))
WRAP_VOID(SELECT, fl_drop_others, (const fl_ranking_t *r, const fl_cut_t *cut, uint32_t *words), (r, cut, words))
WRAP_VOID(SELECT, fl_channel_errors,
          (const uint32_t *delta, uint32_t deltas, uint32_t positions, uint32_t channels, uint32_t *importance),
          (delta, deltas, positions, channels, importance))
WRAP_VOID(SELECT, fl_allot,
          (const uint64_t *cost, const uint32_t *n, uint32_t layers, float s_min, float s_max, float alpha, uint32_t *kept),
          (cost, n, layers, s_min, s_max, alpha, kept))
WRAP_VOID(PROPAGATE, fl_spots_conv2d_input,
          (const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count, const int8_t *w_row,
           float scale, float *delta_in),
          (p, d, spots, count, w_row, scale, delta_in))
WRAP_VOID(PROPAGATE, fl_spots_depthwise_conv2d_input,
          (const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count, uint32_t c,
           const int8_t *w, float scale, float *delta_in),
          (p, d, spots, count, c, w, scale, delta_in))
WRAP_VOID(PROPAGATE, fl_rows_fully_connected_input,
          (const float *delta, const uint16_t *rows, uint32_t count, const int8_t *w, const fl_row_scales_t *w_scale,
           uint32_t cols, float *delta_in),
          (delta, rows, count, w, w_scale, cols, delta_in))
WRAP_VOID(GRADIENT, fl_spots_conv2d_row,
          (const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count, const int8_t *x,
           int32_t x_zero, float *row),
          (p, d, spots, count, x, x_zero, row))
WRAP_VOID(GRADIENT, fl_spots_depthwise_conv2d_row,
          (const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count, uint32_t c,
           const int8_t *x, int32_t x_zero, float *row),
          (p, d, spots, count, c, x, x_zero, row))
WRAP_VOID(UPDATE, fl_step_row,
          (const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const float *gradient, uint32_t n),
          (u, t, row, gradient, n))
WRAP_VOID(UPDATE, fl_step_fully_connected_row,
          (const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, float delta, const int8_t *x, uint32_t cols),
          (u, t, row, delta, x, cols))
WRAP_VOID(PROPAGATE, fl_q_spots_conv2d_input,
          (const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count, const int8_t *w_row,
           int32_t mantissa, uint32_t r, int32_t *delta_in),
          (p, d, spots, count, w_row, mantissa, r, delta_in))
WRAP_VOID(PROPAGATE, fl_q_rows_fully_connected_input,
          (const int32_t *delta, const uint16_t *rows, uint32_t count, const int8_t *w, const fl_row_scales_t *w_scale,
           int32_t scale_exponent, uint32_t r, uint32_t cols, int32_t *delta_in),
          (delta, rows, count, w, w_scale, scale_exponent, r, cols, delta_in))
WRAP_VOID(GRADIENT, fl_q_spots_conv2d_row,
          (const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_spot_t *spots, uint32_t count, const int8_t *x,
           int32_t x_zero, uint32_t r, int32_t *row),
          (p, d, spots, count, x, x_zero, r, row))
WRAP_VOID(UPDATE, fl_q_step_row,
          (const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, const int32_t *sums, int32_t exponent, uint32_t n),
          (u, t, row, sums, exponent, n))
WRAP_VOID(UPDATE, fl_q_step_fully_connected_row,
          (const fl_step_rule_t *u, const fl_trained_t *t, uint32_t row, int32_t delta, int32_t exponent, const int8_t *x,
           uint32_t cols),
          (u, t, row, delta, exponent, x, cols))
#endif

static uint32_t learn(fl_learner_t *l, const int8_t *x, uint32_t label, fl_step_t *step, int *err) {
    const uint32_t start = COUNTER;
    *err = fl_learner_train(l, x, label, step);
    return COUNTER - start;
}

// How deep the stack goes below its caller's in a sample that is trained: painted, then looked at.
static uint32_t stack_of(fl_learner_t *l, const uint8_t *base, const case_t *c) {
    volatile uint8_t *here = __builtin_frame_address(0);
    volatile uint8_t *low = here - STACK_PROBE;
    for (volatile uint8_t *p = low; p < here - 512; p++) {
        *p = 0xa5;
    }
    fl_step_t step = {0};
    for (uint32_t i = 0; i < c->count && !step.trained; i++) {
        fl_learner_train(l, (const int8_t *)base + c->samples_from + (size_t)i * c->sample_bytes,
                         base[c->labels_from + i], &step);
    }
    while (low < here && *low == 0xa5) {
        low++;
    }
    return (uint32_t)(here - low);
}

static int run(uint8_t *base) {
    static fl_model_t m;
    static fl_learner_t l;
    const case_t *c = (const case_t *)base;
    if (c->magic != CASE_MAGIC) {
        printf("error: no case in memory\n");
        return 1;
    }
    int err = fl_model_open(&m, base + c->image_from, c->image_bytes);
    const size_t arena = err ? 0 : fl_model_arena_bytes(&m, FL_PLAN_LEARN);
    uint8_t *block = base + c->arena_from + ((arena + 63) & ~(size_t)63);
    fl_learner_config_t config;
    memcpy(&config, base + c->config_from, sizeof config);
    fl_learner_sizes_t sizes = {0};
    if (!err) {
        err = fl_model_bind(&m, FL_PLAN_LEARN, base + c->arena_from, arena);
    }
    if (!err) {
        err = fl_learner_sizes(&m, &config, &sizes);
    }
    if (!err) {
        err = fl_learner_init(&l, &m, &config, block, sizes.total_bytes);
    }
    if (err) {
        printf("error: the learner does not open (%d)\n", err);
        return 1;
    }
    for (uint32_t i = 0; i < c->count && !err; i++) {
        fl_step_t step;
#ifdef PARTS
        memset(part_ticks, 0, sizeof part_ticks);
#endif
        const int8_t *x = (const int8_t *)base + c->samples_from + (size_t)i * c->sample_bytes;
        const uint32_t ticks = learn(&l, x, base[c->labels_from + i], &step, &err);
        printf("step %lu %lu", (unsigned long)instructions(ticks), (unsigned long)step.trained);
#ifdef PARTS
        for (uint32_t part = 0; part < PARTS_COUNT; part++) {
            printf(" %lu", (unsigned long)instructions(part_ticks[part]));
        }
#endif
        printf("\n");
    }
    const uint32_t crc = fl_crc32(0, fl_learner_state(&l), l.sizes.state_bytes);
    printf("state %08lx %lu\n", (unsigned long)crc, (unsigned long)stack_of(&l, base, c));
    return err;
}

int main(void) {
    PRESCALER = 0;
    if (run((uint8_t *)CASE_ADDRESS)) {
        printf("error\n");
        return 0;
    }
    printf("end\n");
    return 0;
}
