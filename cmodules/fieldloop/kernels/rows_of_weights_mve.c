//   r0 r2 r4 r6  accumulators    r1 r3 r5 r7 rows   r8 inputs   r9 next row   r10 folded   r12 out   r11 the struct
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include <stddef.h>

#include "mve.h"
#include "rows_of_weights_mve.h"

#if defined(__ARM_FEATURE_MVE)

#define BLOCK                                                     \
    "vldrb.u8 q0, [r8], #16\n"                                    \
    "vldrb.u8 q1, [r1], #16\n vmladava.s8 r0, q0, q1\n"           \
    "vldrb.u8 q2, [r3], #16\n vmladava.s8 r2, q0, q2\n"           \
    "vldrb.u8 q3, [r5], #16\n vmladava.s8 r4, q0, q3\n"           \
    "vldrb.u8 q4, [r7], #16\n vmladava.s8 r6, q0, q4\n"

#define RIGHT "vshr.s32 q1, q0, #31\n vqrdmlah.s32 q1, q0, r4\n vrshl.s32 q1, r6\n"
// q2 multipliers, q3 shifts: to the left, before the product, what is positive; -1 only where it is negative.
#define ANY                                                                        \
    "ldr r4, [r11, #44]\n vld20.32 {q2, q3}, [r4]\n vld21.32 {q2, q3}, [r4]\n"     \
    "ldr r6, [r11, #48]\n add r4, r4, r6\n str r4, [r11, #44]\n"                   \
    "vmov.i32 q4, #0\n vmax.s32 q5, q3, q4\n vmin.s32 q3, q3, q4\n"                \
    "vshl.s32 q0, q0, q5\n vqrdmulh.s32 q1, q0, q2\n"                              \
    "vshr.s32 q5, q3, #31\n vshr.s32 q4, q1, #31\n vand q4, q4, q5\n"              \
    "vadd.i32 q1, q1, q4\n vrshl.s32 q1, q1, q3\n"

#define ROWS(finish)                                                                         \
    fl_rows_of_weights_t own = *r;                                                           \
    register fl_rows_of_weights_t *self __asm("r11") = &own;                                 \
    __asm volatile(                                                                          \
        "ldr r9, [r11, #32]\n ldr r10, [r11, #36]\n ldr r12, [r11, #40]\n"                   \
        "ldr r2, [r11, #4]\n sub r9, r9, r2\n vctp.8 r2\n vpnot\n"                           \
        "1:\n ldm r11, {r0, r2, r4, r6}\n"                                                   \
        "sub r8, r0, r2\n"                                                                   \
        "mov r1, r9\n add r3, r1, r4\n add r5, r3, r4\n add r7, r5, r4\n add r9, r7, r4\n"   \
        "lsrs lr, r6, #1\n"                                                                  \
        "vpstttt\n vldrbt.u8 q0, [r8], #16\n vldrbt.u8 q1, [r1], #16\n"                      \
        "vldrbt.u8 q2, [r3], #16\n vldrbt.u8 q3, [r5], #16\n"                                \
        "vpst\n vldrbt.u8 q4, [r7], #16\n"                                                   \
        "vmladav.s8 r0, q0, q1\n vmladav.s8 r2, q0, q2\n"                                    \
        "vmladav.s8 r4, q0, q3\n vmladav.s8 r6, q0, q4\n"                                    \
        "bcc 2f\n" BLOCK                                                                     \
        "2:\n wls lr, lr, 4f\n"                                                              \
        "3:\n" BLOCK BLOCK "le lr, 3b\n"                                                     \
        "4:\n"                                                                               \
        "vmov q0[2], q0[0], r0, r4\n vmov q0[3], q0[1], r2, r6\n"                            \
        "vldrw.u32 q1, [r10], #16\n vadd.i32 q0, q0, q1\n"                                   \
        "add r0, r11, #16\n ldm r0, {r2, r4, r6, r8}\n" finish                               \
        "vqadd.s32 q1, q1, r2\n vqshl.s32 q1, q1, #24\n vshr.s32 q1, q1, #24\n"              \
        "mov r1, r12\n vstrb.32 q1, [r1]\n add r12, r12, #4\n"                                                         \
        "ldr r2, [r11, #4]\n add r2, r2, r9\n cmp r2, r8\n bne 1b\n"                         \
        : : "r"(self)                                                                        \
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r12", "lr", "q0", "q1", "q2", "q3", \
          "q4", "q5", "cc", "memory")

_Static_assert(offsetof(fl_rows_of_weights_t, zero) == 16 && offsetof(fl_rows_of_weights_t, w) == 32 &&
                   offsetof(fl_rows_of_weights_t, requant) == 44,
               "the assembler knows the places");

void fl_rows_of_weights_right_mve(const fl_rows_of_weights_t *r) {
    ROWS(RIGHT);
}

void fl_rows_of_weights_any_mve(const fl_rows_of_weights_t *r) {
    ROWS(ANY);
}

#else

static void rows(const fl_rows_of_weights_t *r, const fl_requant_t *requant, uint32_t step) {
    const int8_t *w = r->w;
    for (int32_t c = 0; w < r->w_end; c++, w += r->k) {
        uint32_t acc = (uint32_t)r->folded[c];
        for (int32_t i = 0; i < r->k; i++) {
            acc += (uint32_t)(r->x[i] * w[i]);
        }
        r->out[c] = fl_finish_as_mve(acc, requant[c % 4 + c / 4 * (int32_t)(step / sizeof(fl_requant_t))], r->zero);
    }
}

void fl_rows_of_weights_right_mve(const fl_rows_of_weights_t *r) {
    const fl_requant_t one = {r->multiplier, r->shift};
    const fl_requant_t same[4] = {one, one, one, one};
    rows(r, same, 0);
}

void fl_rows_of_weights_any_mve(const fl_rows_of_weights_t *r) {
    rows(r, r->requant, r->requant_step);
}

#endif
#else
typedef int fl_no_rows_of_weights_mve_t;  // a translation unit may not be empty
#endif
