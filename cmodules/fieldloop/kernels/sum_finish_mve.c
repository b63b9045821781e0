// From accumulators to int8 with Helium, four channels at a time.
#include "finish.h"
#include "finish_mve.h"
#include "kernels/variants.h"
#include "sum.h"

#if FL_KERNELS == 2

#include <stddef.h>

#include "mve.h"

// The assembler has the places in it.
typedef struct {
    const int32_t *acc;
    const int32_t *b;
    const fl_requant_t *requant;
    uint32_t requant_step;  // bytes from four factors to the next: 32, or 0
    int8_t *out;
    int32_t fours;          // 1 or more
    int32_t zero;           // of the output
    int32_t low, high;
} fours_t;

#if defined(__ARM_FEATURE_MVE)

// Sums are in q0, the scaled ones go to q1; q2 multipliers, q3 shifts; q4 and q5 are free. ANY: to the left, before the
// product, what is positive; -1 only where it is negative.
#define RIGHT "vqrdmulh.s32 q1, q0, q2\n vshr.s32 q4, q1, #31\n vadd.i32 q1, q1, q4\n vrshl.s32 q1, q1, q3\n"
#define ANY                                                                \
    "vmov.i32 q4, #0\n vmax.s32 q5, q3, q4\n vmin.s32 q3, q3, q4\n"        \
    "vshl.s32 q0, q0, q5\n vqrdmulh.s32 q1, q0, q2\n"                      \
    "vshr.s32 q5, q3, #31\n vshr.s32 q4, q1, #31\n vand q4, q4, q5\n"      \
    "vadd.i32 q1, q1, q4\n vrshl.s32 q1, q1, q3\n"

// Each four is read before it is written: the outputs may lie on the accumulators.
#define FOURS(scale)                                                                                               \
    register const fours_t *self __asm("r11") = t;                                                                 \
    __asm volatile(                                                                                                \
        "ldrd r0, r1, [r11]\n ldrd r2, r3, [r11, #8]\n ldrd r4, lr, [r11, #16]\n ldrd r5, r6, [r11, #24]\n"        \
        "ldr r8, [r11, #32]\n"                                                                                     \
        "vdup.32 q6, r6\n vdup.32 q7, r8\n"                                                                        \
        "wls lr, lr, 2f\n"                                                                                         \
        "1:\n"                                                                                                     \
        "vldrw.u32 q0, [r0], #16\n vldrw.u32 q1, [r1], #16\n vadd.i32 q0, q0, q1\n"                                \
        "vld20.32 {q2, q3}, [r2]\n vld21.32 {q2, q3}, [r2]\n add r2, r2, r3\n" scale                               \
        "vqadd.s32 q1, q1, r5\n vmax.s32 q1, q1, q6\n vmin.s32 q1, q1, q7\n"                                       \
        "vstrb.32 q1, [r4], #4\n"                                                                                  \
        "le lr, 1b\n"                                                                                              \
        "2:\n"                                                                                                     \
        : : "r"(self)                                                                                              \
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "lr", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "cc", \
          "memory")

static __attribute__((noinline)) void fours_right(const fours_t *t) {
    FOURS(RIGHT);
}

static __attribute__((noinline)) void fours_any(const fours_t *t) {
    FOURS(ANY);
}

_Static_assert(offsetof(fours_t, requant) == 8 && offsetof(fours_t, out) == 16 && offsetof(fours_t, zero) == 24 &&
                   offsetof(fours_t, high) == 32,
               "the assembler knows the places");

#else

static void fours_any(const fours_t *t) {
    for (int32_t i = 0; i < 4 * t->fours; i++) {
        const fl_requant_t r = t->requant[i % 4 + i / 4 * (int32_t)(t->requant_step / sizeof(fl_requant_t))];
        const int32_t y = fl_finish_as_mve((uint32_t)t->acc[i] + (uint32_t)t->b[i], r, t->zero);
        t->out[i] = (int8_t)(y < t->low ? t->low : y > t->high ? t->high : y);
    }
}

static void fours_right(const fours_t *t) {
    fours_any(t);
}

#endif

void fl_finish_sums_mve(const fl_quant_t *q, int32_t pixels, int32_t channels, const int32_t *b, const int32_t *acc,
                        int8_t *out, int32_t out_step) {
    if (!b || channels < 4 || q->flags & FL_OP_SINGLE_ROUNDING) {
        fl_finish_sums_plain(q, pixels, channels, b, acc, out, out_step);
        return;
    }
    const fl_requant_t same[4] = {q->requant[0], q->requant[0], q->requant[0], q->requant[0]};
    const int32_t quick = channels & ~3;
    fours_t t = {
        .b = b,
        .requant = q->requant_stride ? q->requant : same,
        .requant_step = q->requant_stride ? 4 * sizeof(fl_requant_t) : 0,
        .fours = quick / 4,
        .zero = q->out_zero,
        .low = q->act_min,
        .high = q->act_max,
    };
    void (*const fours)(const fours_t *t) = fl_all_right_mve(q, channels) ? fours_right : fours_any;
    for (int32_t i = 0; i < pixels; i++) {
        t.acc = acc;
        t.out = out;
        fours(&t);
        if (quick < channels) {
            fl_finish_run(q, b, quick, channels - quick, (const uint32_t *)(acc + quick), out + quick);
        }
        acc += channels;
        out += out_step;
    }
}

#else
typedef int fl_no_sum_finish_mve_t;  // a translation unit may not be empty
#endif
