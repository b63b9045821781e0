// Bare metal: runs the model of a case operator by operator and tells, for each, what it executed and what came out.
//
// QEMU puts the case into external memory before the start: case_t, image, input; the arena lies behind them.
//
//   op INDEX INSTRUCTIONS SCRATCH CRC-32-OF-THE-OUTPUT     one line an operator
//   run INSTRUCTIONS STACK ARENA                            of fl_model_run as a whole, on the same input
#include <stdio.h>
#include <string.h>

#include "counter.h"
#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_model.h"

enum { CASE_MAGIC = 0x43424c46, STACK_PROBE = 16384 };

typedef struct {
    uint32_t magic;
    uint32_t image_from, image_bytes;  // from the case's start
    uint32_t input_from, input_bytes;
    uint32_t arena_from;
    uint32_t reserved[2];
} case_t;

typedef int (*work_t)(fl_model_t *m, uint32_t first, uint32_t end);

static int all_of_it(fl_model_t *m, uint32_t first, uint32_t end) {
    (void)first;
    (void)end;
    return fl_model_run(m);
}

static int nothing(fl_model_t *m, uint32_t first, uint32_t end) {
    (void)m;
    (void)first;
    (void)end;
    return 0;
}

static uint32_t ticks_of(work_t volatile work, fl_model_t *m, uint32_t first, uint32_t end) {
    const uint32_t start = COUNTER;
    work(m, first, end);
    return COUNTER - start;
}

static uint32_t count(work_t work, fl_model_t *m, uint32_t first, uint32_t end) {
    const uint32_t empty = ticks_of(nothing, m, first, end);
    return instructions(ticks_of(work, m, first, end) - empty);
}

// How deep the stack goes below its caller's: painted, then looked at.
static uint32_t stack_of(fl_model_t *m) {
    volatile uint8_t *here = __builtin_frame_address(0);
    volatile uint8_t *low = here - STACK_PROBE;
    for (volatile uint8_t *p = low; p < here - 256; p++) {
        *p = 0xa5;
    }
    fl_model_run(m);
    while (low < here && *low == 0xa5) {
        low++;
    }
    return (uint32_t)(here - low);
}

static int run(uint8_t *base) {
    const case_t *c = (const case_t *)base;
    if (c->magic != CASE_MAGIC) {
        printf("error: no case in memory\n");
        return 1;
    }
    fl_model_t m;
    int err = fl_model_open(&m, base + c->image_from, c->image_bytes);
    const size_t arena = err ? 0 : fl_model_arena_bytes(&m, FL_PLAN_INFER);
    if (!err) {
        err = fl_model_bind(&m, FL_PLAN_INFER, base + c->arena_from, arena);
    }
    if (err || fl_model_input_info(&m, 0)->bytes != c->input_bytes) {
        printf("error: the model does not open (%d) or takes another input\n", err);
        return 1;
    }
    const uint8_t *input = base + c->input_from;
    memcpy(fl_model_input(&m, 0), input, c->input_bytes);
    for (uint32_t i = 0; i < m.op_count; i++) {
        const uint32_t spent = count(fl_model_run_ops, &m, i, i + 1);
        const uint32_t t = m.ops[i].out[0];
        const uint32_t crc = fl_crc32(0, fl_model_tensor(&m, t), m.tensors[t].bytes);
        printf("op %lu %lu %lu %08lx\n", (unsigned long)i, (unsigned long)spent,
               (unsigned long)fl_model_op_scratch(&m, i, fl_kernels_variant()), (unsigned long)crc);
    }
    memcpy(fl_model_input(&m, 0), input, c->input_bytes);
    const uint32_t whole = count(all_of_it, &m, 0, m.op_count);
    memcpy(fl_model_input(&m, 0), input, c->input_bytes);
    const uint32_t stack = stack_of(&m);
    printf("run %lu %lu %lu\n", (unsigned long)whole, (unsigned long)stack, (unsigned long)arena);
    return 0;
}

int main(void) {
    PRESCALER = 0;
    const uint32_t start = COUNTER;
    __asm volatile("mov r3, #1000\n1: subs r3, #1\n bne 1b" ::: "r3", "cc");
    const uint32_t spent = instructions(COUNTER - start);
    if (spent < 2000 || spent > 2010) {
        printf("error: a loop of 2000 instructions counted as %lu\n", (unsigned long)spent);
        return 0;
    }
    run((uint8_t *)CASE_ADDRESS);
    printf("end\n");
    return 0;
}
