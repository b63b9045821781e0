//   r0 r2 r4 r6  accumulators   r1 r3 r5 r7 more   r8 x   r9 x_step   r10 acc   r11 the struct   r12 acc_step
//   A widening load has its address in r0 to r7: centred, x is r3, and r1 the zero point.
//   q0 x   q1 to q4 weights
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include <stddef.h>

#include "mve.h"
#include "sum_pass_mve.h"

#if defined(__ARM_FEATURE_MVE)

// `mask`, `load`, `multiply`: of 8 or 16 bits; `centre`, `more`: what else is done to x and the sums.
#define PASS(mask, load, x, centre, multiply, more)                                                              \
    register const fl_sum_pass_t *self __asm("r11") = t;                                                         \
    __asm volatile(                                                                                              \
        "ldr r2, [r11, #20]\n ldrd r0, r1, [r11, #24]\n"                                                         \
        mask " r2\n"                                                                                             \
        "add r3, r0, r1\n add r4, r3, r1\n add r5, r4, r1\n"                                                     \
        "vpstttt\n" load " q1, [r0]\n" load " q2, [r3]\n" load " q3, [r4]\n" load " q4, [r5]\n"                  \
        "ldrd r8, r9, [r11]\n ldrd r10, r12, [r11, #8]\n ldr lr, [r11, #16]\n"                                   \
        "ldrd r1, r3, [r11, #32]\n ldrd r5, r7, [r11, #40]\n"                                                    \
        centre("ldr r1, [r11, #48]\n mov r3, r8\n")                                                              \
        "wls lr, lr, 2f\n"                                                                                       \
        "1:\n"                                                                                                   \
        "ldm r10, {r0, r2, r4, r6}\n"                                                                            \
        "vpst\n" load " q0, [" x "]\n"                                                                           \
        "add " x ", " x ", r9\n"                                                                                 \
        centre("vadd.i16 q0, q0, r1\n")                                                                          \
        multiply " r0, q0, q1\n" multiply " r2, q0, q2\n" multiply " r4, q0, q3\n" multiply " r6, q0, q4\n"      \
        more                                                                                                     \
        "stm r10, {r0, r2, r4, r6}\n"                                                                            \
        "add r10, r10, r12\n"                                                                                    \
        "le lr, 1b\n"                                                                                            \
        "2:\n"                                                                                                   \
        : : "r"(self)                                                                                            \
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r12", "lr", "q0", "q1", "q2", "q3", \
          "q4", "cc", "memory")

#define NO(text) ""
#define YES(text) text

_Static_assert(offsetof(fl_sum_pass_t, acc) == 8 && offsetof(fl_sum_pass_t, pixels) == 16 &&
                   offsetof(fl_sum_pass_t, n) == 20 && offsetof(fl_sum_pass_t, w) == 24 &&
                   offsetof(fl_sum_pass_t, more) == 32 && offsetof(fl_sum_pass_t, minus) == 48,
               "the assembler knows the places");

void fl_sum_pass_more_mve(const fl_sum_pass_t *t) {
    PASS("vctp.8", "vldrbt.u8", "r8", NO, "vmladava.s8", "add r0, r0, r1\n add r2, r2, r3\n add r4, r4, r5\n add r6, r6, r7\n");
}

void fl_sum_pass_mve(const fl_sum_pass_t *t) {
    PASS("vctp.8", "vldrbt.u8", "r8", NO, "vmladava.s8", "");
}

void fl_sum_pass_centred_mve(const fl_sum_pass_t *t) {
    PASS("vctp.16", "vldrbt.s16", "r3", YES, "vmladava.s16", "");
}

#else

static void pass(const fl_sum_pass_t *t, int32_t lanes, int32_t minus, const int32_t more[4]) {
    for (int32_t i = 0; i < t->pixels; i++) {
        for (int32_t j = 0; j < 4; j++) {
            int32_t *acc = t->acc + i * (t->acc_step / 4) + j;
            uint32_t sum = (uint32_t)*acc + (uint32_t)more[j];
            for (int32_t c = 0; c < t->n && c < lanes; c++) {
                sum += (uint32_t)((t->x[i * t->x_step + c] + minus) * t->w[j * t->row + c]);
            }
            *acc = (int32_t)sum;
        }
    }
}

static const int32_t nothing[4];

void fl_sum_pass_more_mve(const fl_sum_pass_t *t) {
    pass(t, 16, 0, t->more);
}

void fl_sum_pass_mve(const fl_sum_pass_t *t) {
    pass(t, 16, 0, nothing);
}

void fl_sum_pass_centred_mve(const fl_sum_pass_t *t) {
    pass(t, 8, t->minus, nothing);
}

#endif
#else
typedef int fl_no_sum_pass_mve_t;  // a translation unit may not be empty
#endif
