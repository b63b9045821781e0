// By hand because gcc 12 spills eight accumulators. For 16 inputs: 6 loads and 8 VMLADAV for 128 products; what comes
// out of the accumulators is finished four pixels at a time, the rounding half away from zero being a -1 for what is
// negative, added by VQRDMLAH, before a shift that rounds halves up.
//
//   r0 r2 r4 r6   channel 0, pixels 0..3      r1  columns          q6  out_zero, q7 places
//   r8 r10 r12 lr channel 1, pixels 0..3      r3 r5  weights       r7  blocks left
//                                             r9  requant          r11 the tile
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include <stddef.h>

#include "mve.h"
#include "tile_mve.h"

#if defined(__ARM_FEATURE_MVE)

// vmladav or vmladava of the four columns' blocks with both rows'.
#define PRODUCTS(multiply)                                                             \
    "vldrb.u8 q2, [r1], #64\n" multiply " r0, q2, q0\n" multiply " r8, q2, q1\n"       \
    "vldrb.u8 q3, [r1, #-48]\n" multiply " r2, q3, q0\n" multiply " r10, q3, q1\n"     \
    "vldrb.u8 q4, [r1, #-32]\n" multiply " r4, q4, q0\n" multiply " r12, q4, q1\n"     \
    "vldrb.u8 q5, [r1, #-16]\n" multiply " r6, q5, q0\n" multiply " lr, q5, q1\n"
#define WEIGHTS "vldrb.u8 q0, [r3], #16\n vldrb.u8 q1, [r5], #16\n"

// acc in `q`, the answer in `y`; multiplier in `m`, shift in `s`.
#define FINISH_RIGHT(q, y, m, s)    \
    "vshr.s32 " y ", " q ", #31\n"  \
    "vqrdmlah.s32 " y ", " q ", " m "\n" \
    "vrshl.s32 " y ", " s "\n"
// s > 0 shifts left before the product; s = 0 rounds only once. `t`, and lr, are free.
#define FINISH_ANY(q, y, m, s, t)          \
    "bic " t ", " s ", " s ", asr #31\n"   \
    "and lr, " s ", " s ", asr #31\n"      \
    "vshl.s32 " q ", " t "\n"              \
    "lsr " t ", lr, #31\n"                 \
    "vshr.s32 " y ", " q ", #31\n"         \
    "vmul.i32 " y ", " y ", " t "\n"       \
    "vqrdmlah.s32 " y ", " q ", " m "\n"   \
    "vrshl.s32 " y ", lr\n"

#define TILE(finish_0, finish_1)                                                   \
    register fl_tile_mve_t *self __asm("r11") = t;                                 \
    __asm volatile(                                                                \
        "ldr r0, [r11, #36]\n vdup.16 q6, r0\n"                                    \
        "add r0, r11, #40\n vldrh.u16 q7, [r0]\n"                                  \
        "ldr r9, [r11, #28]\n"                                                     \
        "ldr r5, [r11, #56]\n"                                                     \
        "ldm r11, {r0, r1, r2, r4, r7}\n"                                          \
        "vctp.8 r2\n vpnot\n"                                                      \
        "sub r3, r5, r2\n add r5, r3, r4\n"                                        \
        "1:\n"                                                                     \
        "vpstt\n vldrbt.u8 q0, [r3], #16\n vldrbt.u8 q1, [r5], #16\n"              \
        PRODUCTS("vmladav.s8")                                                     \
        "lsrs r7, r7, #1\n bcc 2f\n"                                               \
        WEIGHTS PRODUCTS("vmladava.s8")                                            \
        "2:\n cbz r7, 4f\n"                                                        \
        "3:\n" WEIGHTS PRODUCTS("vmladava.s8") WEIGHTS PRODUCTS("vmladava.s8")     \
        "subs r7, #1\n bne 3b\n"                                                   \
        "4:\n"                                                                     \
        "vmov q0[2], q0[0], r0, r4\n vmov q0[3], q0[1], r2, r6\n"                  \
        "vmov q1[2], q1[0], r8, r12\n vmov q1[3], q1[1], r10, lr\n"                \
        "ldrd r0, r1, [r11, #20]\n"                                                \
        "ldm r1!, {r2, r4}\n"                                                      \
        "vadd.i32 q0, q0, r2\n vadd.i32 q1, q1, r4\n"                              \
        "ldr r2, [r11, #32]\n"                                                     \
        "ldm r9, {r6, r8, r10, r12}\n add r9, r9, r2\n"                            \
        finish_0 finish_1                                                          \
        "vqmovnb.s32 q2, q2\n vqmovnt.s32 q2, q3\n"                                \
        "vqadd.s16 q2, q2, q6\n vqmovnb.s16 q2, q2\n"                              \
        "vstrb.16 q2, [r0, q7]\n"                                                  \
        "adds r0, #2\n strd r0, r1, [r11, #20]\n"                                  \
        "ldm r11, {r0, r1, r2, r4, r7}\n"                                          \
        "cmp r5, r0\n"                                                             \
        "sub r3, r5, r2\n add r5, r3, r4\n"                                        \
        "bne 1b\n"                                                                 \
        : : "r"(self)                                                              \
        : "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r12", "lr", "q0", "q1", "q2", \
          "q3", "q4", "q5", "q6", "q7", "cc", "memory")

_Static_assert(offsetof(fl_tile_mve_t, out) == 20 && offsetof(fl_tile_mve_t, requant) == 28 &&
                   offsetof(fl_tile_mve_t, zero) == 36 && offsetof(fl_tile_mve_t, place) == 40 &&
                   offsetof(fl_tile_mve_t, w) == 56,
               "the assembler knows the places");

void fl_tile_right_mve(fl_tile_mve_t *t) {
    TILE(FINISH_RIGHT("q0", "q2", "r6", "r8"), FINISH_RIGHT("q1", "q3", "r10", "r12"));
}

void fl_tile_any_mve(fl_tile_mve_t *t) {
    TILE(FINISH_ANY("q0", "q2", "r6", "r8", "r2"), FINISH_ANY("q1", "q3", "r10", "r12", "r4"));
}

#else

static uint32_t product(const fl_tile_mve_t *t, const int8_t *w, int32_t pixel) {
    uint32_t acc = 0;
    for (int32_t i = 0; i < t->k; i++) {
        const int32_t at = i + t->pad;
        acc += (uint32_t)(t->columns[at / 16 * 64 + pixel * 16 + at % 16] * w[i]);
    }
    return acc;
}

void fl_tile_any_mve(fl_tile_mve_t *t) {
    const int8_t *w = t->w;
    const uint8_t *requant = (const uint8_t *)t->requant;
    for (int32_t pair = 0; pair < t->pairs; pair++) {
        for (int32_t j = 0; j < 2; j++, w += t->k) {
            for (int32_t i = 0; i < 4; i++) {
                const uint32_t acc = product(t, w, i) + (uint32_t)t->folded[j];
                fl_requant_t r;
                memcpy(&r, requant + (size_t)j * sizeof r, sizeof r);
                t->out[t->place[2 * i + j]] = fl_finish_as_mve(acc, r, (int32_t)t->zero);
            }
        }
        t->out += 2;
        t->folded += 2;
        requant += t->requant_step;
    }
}

void fl_tile_right_mve(fl_tile_mve_t *t) {
    fl_tile_any_mve(t);
}

#endif
#else
typedef int fl_no_tile_mve_t;  // a translation unit may not be empty
#endif
