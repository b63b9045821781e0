// Two by two outputs of a 3x3 kernel cost one gathering and four products: the same four columns of four rows, multiplied
// with the weights as they are, one column on, one row down, and both.
//
//   r0 r2 r4 r6  accumulators        r1 x  r3 out  r5 step  r7 out_step  r8 bias  r9 multiplier  r10 shift  r11 zero
//   q0..q3 weights  q4 gather  q5 place  q6 q7 to work in                r12 the rows           lr turns
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include <stddef.h>

#include "mve.h"
#include "window_rows_mve.h"

#if defined(__ARM_FEATURE_MVE)

// To int8 by a shift that saturates.
#define TAKE "vmov q6[2], q6[0], r0, r4\n vmov q6[3], q6[1], r2, r6\n vadd.i32 q6, q6, r8\n"
#define TO_INT8 "vqadd.s32 q7, q7, r11\n vqshl.s32 q7, q7, #24\n vshr.s32 q7, q7, #24\n"
#define RIGHT "vshr.s32 q7, q6, #31\n vqrdmlah.s32 q7, q6, r9\n vrshl.s32 q7, r10\n"
// shift > 0 shifts left before the product; 0 rounds only once.
#define ANY                                                                  \
    "bic r0, r10, r10, asr #31\n and r2, r10, r10, asr #31\n lsr r4, r2, #31\n" \
    "vshl.s32 q6, r0\n vshr.s32 q7, q6, #31\n vmul.i32 q7, q7, r4\n"         \
    "vqrdmlah.s32 q7, q6, r9\n vrshl.s32 q7, r2\n"

#define TURN_TWO(finish)                                        \
    "vldrw.u32 q6, [r1, q4]\n"                                  \
    "vmladav.s8 r0, q6, q0\n vmladav.s8 r2, q6, q1\n"           \
    "vmladav.s8 r4, q6, q2\n vmladav.s8 r6, q6, q3\n"           \
    "add r1, r1, r5\n" TAKE finish TO_INT8                      \
    "vstrb.32 q7, [r3, q5]\n add r3, r3, r7\n"

#define COLUMN(acc) "vldrw.u32 q6, [r1, q4]\n vmladav.s8 " acc ", q6, q0\n add r1, r1, r5\n"
#define TURN_ONE(finish)                                        \
    COLUMN("r0") COLUMN("r2") COLUMN("r4") COLUMN("r6")         \
    TAKE finish TO_INT8                                         \
    "vpst\n vstrbt.32 q7, [r3, q5]\n add r3, r3, r7\n"

#define ROWS(weights, turn, go_back)                                                     \
    register fl_window_rows_t *self __asm("r12") = v;                                    \
    __asm volatile(                                                                      \
        "ldr r0, [r12, #32]\n" weights                                                   \
        "add r0, r12, #64\n vldrw.u32 q4, [r0]\n vldrw.u32 q5, [r0, #16]\n"              \
        "ldm r12, {r1, r3, r5, r7, r8, r9, r10, r11}\n"                                  \
        "1:\n ldr lr, [r12, #36]\n"                                                      \
        "2:\n" turn "le lr, 2b\n"                                                        \
        "ldr r0, [r12, #40]\n cbz r0, 3f\n" go_back turn                                 \
        "3:\n ldr r0, [r12, #44]\n subs r0, #1\n beq 5f\n str r0, [r12, #44]\n"           \
        "ldrd r2, r4, [r12, #48]\n ldrd r1, r3, [r12]\n"                                 \
        "add r1, r1, r2\n add r3, r3, r4\n"                                              \
        "cmp r0, #1\n bne 4f\n ldr r2, [r12, #56]\n add r3, r3, r2\n"                    \
        "4:\n strd r1, r3, [r12]\n b 1b\n"                                              \
        "5:\n"                                                                           \
        : : "r"(self)                                                                    \
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "lr", "q0", "q1", "q2", "q3", \
          "q4", "q5", "q6", "q7", "cc", "memory")

#define WEIGHTS_TWO                                                                      \
    "vldrb.u8 q0, [r0, #8]\n vldrb.u8 q1, [r0, #4]\n vldrb.u8 q2, [r0, #7]\n vldrb.u8 q3, [r0, #3]\n"
#define WEIGHTS_ONE "vldrb.u8 q0, [r0]\n ldr r2, [r12, #60]\n vctp.32 r2\n"
#define BACK_TWO "sub r1, r1, r5, lsr #1\n sub r3, r3, r7, lsr #1\n"
#define BACK_ONE "mls r1, r0, r5, r1\n lsr r2, r7, #2\n mls r3, r0, r2, r3\n"

_Static_assert(offsetof(fl_window_rows_t, table) == 32 && offsetof(fl_window_rows_t, rows) == 44 &&
                   offsetof(fl_window_rows_t, lanes) == 60 && offsetof(fl_window_rows_t, gather) == 64,
               "the assembler knows the places");

void fl_window_two_right_mve(fl_window_rows_t *v) {
    ROWS(WEIGHTS_TWO, TURN_TWO(RIGHT), BACK_TWO);
}

void fl_window_two_any_mve(fl_window_rows_t *v) {
    ROWS(WEIGHTS_TWO, TURN_TWO(ANY), BACK_TWO);
}

void fl_window_one_right_mve(fl_window_rows_t *v) {
    ROWS(WEIGHTS_ONE, TURN_ONE(RIGHT), BACK_ONE);
}

void fl_window_one_any_mve(fl_window_rows_t *v) {
    ROWS(WEIGHTS_ONE, TURN_ONE(ANY), BACK_ONE);
}

#else

// Four columns of four rows from `x` on times the weights at `table`.
static int8_t output(const fl_window_rows_t *v, const int8_t *table, const int8_t *x) {
    const fl_requant_t r = {v->multiplier, v->shift};
    uint32_t acc = (uint32_t)v->bias;
    for (uint32_t i = 0; i < 16; i++) {
        acc += (uint32_t)(x[v->gather[i / 4] + i % 4] * table[i]);
    }
    return fl_finish_as_mve(acc, r, v->zero);
}

static void to_next_row(fl_window_rows_t *v) {
    if (--v->rows > 0) {
        v->x += v->x_row;
        v->out += v->out_row + (v->rows == 1 ? v->last_row : 0);
    }
}

void fl_window_two_any_mve(fl_window_rows_t *v) {
    static const int32_t from[4] = {8, 4, 7, 3};
    for (; v->rows > 0; to_next_row(v)) {
        for (int32_t turn = 0; turn < v->turns + (v->back > 0); turn++) {
            // in half turns: columns
            const int32_t at = turn < v->turns ? 2 * turn : 2 * v->turns - v->back;
            for (int32_t i = 0; i < 4; i++) {
                v->out[at * v->out_step / 2 + (int32_t)v->place[i]] = output(v, v->table + from[i], v->x + at * v->step / 2);
            }
        }
    }
}

void fl_window_one_any_mve(fl_window_rows_t *v) {
    for (; v->rows > 0; to_next_row(v)) {
        for (int32_t turn = 0; turn < v->turns + (v->back > 0); turn++) {
            const int32_t at = turn < v->turns ? 4 * turn : 4 * v->turns - v->back;
            for (int32_t i = 0; i < v->lanes; i++) {
                v->out[at * (v->out_step / 4) + (int32_t)v->place[i]] = output(v, v->table, v->x + (at + i) * v->step);
            }
        }
    }
}

void fl_window_two_right_mve(fl_window_rows_t *v) {
    fl_window_two_any_mve(v);
}

void fl_window_one_right_mve(fl_window_rows_t *v) {
    fl_window_one_any_mve(v);
}

#endif
#else
typedef int fl_no_window_rows_mve_t;  // a translation unit may not be empty
#endif
