// The inner loop of the depthwise convolution, in assembly: eight instructions for a tap of four channels, seven where
// they share an input, and 43 for a pixel's four outputs.
#include "four_dsp.h"

#include "finish_dsp.h"
#include "kernels/variants.h"

#if FL_KERNELS == 1

// The four outputs of s->acc where a scale is no short right shift.
uint32_t fl_four_rest_dsp(const fl_four_t *s);

uint32_t fl_four_rest_dsp(const fl_four_t *s) {
    const int once = (s->q->flags & FL_OP_SINGLE_ROUNDING) != 0;
    uint32_t word = 0;
    for (int32_t i = 0; i < 4; i++) {
        const fl_scale_t scale = {s->multiplier[i], s->down[i]};
        int32_t y;
        if (!once && (uint32_t)scale.down < FL_NEAR) {
            y = fl_scale_near(s->acc[i], scale, s->twice_zero_1);
        } else if (!once && (uint32_t)scale.down < FL_RIGHT) {
            y = fl_scale_far(s->acc[i], scale, s->twice_zero_1);
        } else {
            y = fl_finish(s->q, NULL, s->channel + i, s->acc[i]);
        }
        word |= (uint32_t)(uint8_t)y << (8 * i);
    }
    if (s->special & FL_FOUR_CLAMPED) {
        word = fl_min8(fl_max8(word, s->low), s->high);
    }
    return word;
}

#if FL_DSP_ASSEMBLY

// A tap. Sums of the channels in r6 to r9; `x`: an address made of r0, and ip, the step to the next tap.
#define OWN(x)                       \
    "ldr r2, " x "\n"                \
    "ldrd r4, r5, [r10], #8\n"       \
    "sxtab16 r3, r11, r2, ror #8\n"  \
    "sxtab16 r2, r11, r2\n"          \
    "smlabb r6, r2, r4, r6\n"        \
    "smlatt r8, r2, r4, r8\n"        \
    "smlabb r7, r3, r5, r7\n"        \
    "smlatt r9, r3, r5, r9\n"

#define SHARED(x)                    \
    "ldrsb r2, " x "\n"              \
    "ldrd r4, r5, [r10], #8\n"       \
    "sadd16 r2, r2, r11\n"           \
    "smlabb r6, r4, r2, r6\n"        \
    "smlatb r8, r4, r2, r8\n"        \
    "smlabb r7, r5, r2, r7\n"        \
    "smlatb r9, r5, r2, r9\n"

#define NINE(TAP)                                                           \
    "1:\n"                                                                  \
    "ldmia lr, {r6-r10}\n" /* bias, w */                                    \
    TAP("[r0]") TAP("[r0, ip]") TAP("[r0, ip, lsl #1]") "add r0, r0, r1\n"   \
    TAP("[r0]") TAP("[r0, ip]") TAP("[r0, ip, lsl #1]") "add r0, r0, r1\n"   \
    TAP("[r0]") TAP("[r0, ip]") TAP("[r0, ip, lsl #1]")

#define FOUR(TAP)                                                       \
    "push {r3-r11, lr}\n"                                               \
    "mov lr, r0\n"                                                      \
    "ldr r12, [lr, #88]\n"  /* next */                                  \
    "13:\n"                                                             \
    "ldrd r0, r1, [lr, #96]\n"  /* channel, x_channel */                \
    "ldmia r12!, {r2-r9}\n"      /* out_first to w_skip */              \
    "add r2, r2, r0\n"                                                  \
    "add r3, r3, r0\n"                                                  \
    "add r5, r5, r1\n"                                                  \
    "mov r0, r5\n"               /* x_first */                          \
    "add r11, lr, #108\n"        /* out */                              \
    "str r2, [r11], #4\n"                                               \
    "stmia r11!, {r2-r9}\n"                                             \
    "ldmia r12!, {r2-r4}\n"      /* w_end, nine, w */                   \
    "str r12, [lr, #88]\n"                                              \
    "str r4, [lr, #16]\n"                                               \
    "cmp r3, #0\n"                                                      \
    "adr.w r3, 1f\n"                                                    \
    "adr.w r4, 5f\n"                                                    \
    "it eq\n"                                                           \
    "moveq r3, r4\n"                                                    \
    "orr r3, r3, #1\n"                                                  \
    "stmia r11, {r2, r3}\n"      /* nine is now where the loop begins */\
    "ldrd ip, r1, [lr, #68]\n"  /* x_tap, x_row */                      \
    "ldr r11, [lr, #76]\n"      /* minus */                             \
    "bx r3\n"                                                           \
    NINE(TAP)                                                           \
    "2:\n"                                                              \
    "add r10, lr, #20\n"                                                \
    "ldr r2, [lr, #56]\n"  /* special */                                \
    "cmp r2, #1\n"                                                      \
    "bhi 11f\n"                                                         \
    "ldmia r10!, {r2-r5}\n"  /* multiplier */                           \
    "qadd r6, r6, r6\n"                                                 \
    "qadd r7, r7, r7\n"                                                 \
    "qadd r8, r8, r8\n"                                                 \
    "qadd r9, r9, r9\n"                                                 \
    "smmulr r6, r6, r2\n"                                               \
    "smmulr r7, r7, r3\n"                                               \
    "smmulr r8, r8, r4\n"                                               \
    "smmulr r9, r9, r5\n"                                               \
    "ldmia r10!, {r2-r5}\n"  /* down */                                 \
    "add r6, r6, r6, asr #31\n"                                         \
    "add r7, r7, r7, asr #31\n"                                         \
    "add r8, r8, r8, asr #31\n"                                         \
    "add r9, r9, r9, asr #31\n"                                         \
    "ldr r10, [r10]\n"  /* twice_zero_1 */                              \
    "asr r6, r6, r2\n"                                                  \
    "asr r7, r7, r3\n"                                                  \
    "asr r8, r8, r4\n"                                                  \
    "asr r9, r9, r5\n"                                                  \
    "add r6, r6, r10\n"                                                 \
    "add r7, r7, r10\n"                                                 \
    "add r8, r8, r10\n"                                                 \
    "add r9, r9, r10\n"                                                 \
    "ssat r6, #8, r6, asr #1\n"                                         \
    "ssat r7, #8, r7, asr #1\n"                                         \
    "ssat r8, #8, r8, asr #1\n"                                         \
    "ssat r9, #8, r9, asr #1\n"                                         \
    "bfi r6, r7, #8, #8\n"                                              \
    "bfi r6, r8, #16, #8\n"                                             \
    "bfi r6, r9, #24, #8\n"                                             \
    "beq 10f\n"  /* special is 1 */                                     \
    "3:\n"                                                              \
    "ldrd r3, r2, [lr, #104]\n"  /* out_step, out */                    \
    "ldr r4, [lr, #116]\n"      /* out_end */                           \
    "ldr r5, [lr, #128]\n"      /* x_delta */                           \
    "str r6, [r2]\n"                                                    \
    "add r2, r2, r3\n"                                                  \
    "add r0, r0, r5\n"                                                  \
    "cmp r2, r4\n"                                                      \
    "str r2, [lr, #108]\n"                                              \
    "it ne\n"                                                           \
    "ldrne pc, [lr, #148]\n"                                            \
    /* the next line */                                                 \
    "ldrd r3, r0, [lr, #120]\n"  /* lines, x_first */                   \
    "subs r3, r3, #1\n"                                                 \
    "beq 4f\n"                                                          \
    "ldrd r2, r5, [lr, #80]\n"   /* out_line, x_line */                 \
    "add r0, r0, r5\n"                                                  \
    "strd r3, r0, [lr, #120]\n"                                         \
    "ldr r5, [lr, #112]\n"       /* out_first */                        \
    "add r4, r4, r2\n"                                                  \
    "add r5, r5, r2\n"                                                  \
    "strd r5, r4, [lr, #112]\n"                                         \
    "str r5, [lr, #108]\n"                                              \
    "ldr pc, [lr, #148]\n"                                              \
    "4:\n"                                                              \
    "ldrd r12, r2, [lr, #88]\n"  /* next, end */                        \
    "cmp r12, r2\n"                                                     \
    "bne 13b\n"                                                         \
    "pop {r3-r11, pc}\n"                                                \
    /* any taps */                                                      \
    "5:\n"                                                              \
    "ldmia lr, {r6-r10}\n"                                              \
    "ldr r4, [lr, #144]\n"  /* w_end */                                 \
    "ldr r1, [lr, #132]\n"  /* taps */                                  \
    "cmp r10, r4\n"                                                     \
    "beq 2b\n"                                                          \
    "6:\n"                                                              \
    "cmp r1, #2\n"                                                      \
    "beq 7f\n"                                                          \
    "blt 8f\n"                                                          \
    "cmp r1, #3\n"                                                      \
    "bne 9f\n"                                                          \
    "12:\n"                                                             \
    TAP("[r0]")                                                         \
    "add r0, r0, ip\n"                                                  \
    "7:\n"                                                              \
    TAP("[r0]")                                                         \
    "add r0, r0, ip\n"                                                  \
    "8:\n"                                                              \
    TAP("[r0]")                                                         \
    "add r1, lr, #132\n"                                                \
    "ldmia r1, {r1-r4}\n"  /* taps, x_skip, w_skip, w_end */            \
    "add r0, r0, r2\n"                                                  \
    "add r10, r10, r3\n"                                                \
    "cmp r10, r4\n"                                                     \
    "bne 6b\n"                                                          \
    "b 2b\n"                                                            \
    "9:\n"  /* more than three: two at a time, until two or three are left */\
    TAP("[r0]")                                                         \
    "add r0, r0, ip\n"                                                  \
    TAP("[r0]")                                                         \
    "add r0, r0, ip\n"                                                  \
    "sub r1, r1, #2\n"                                                  \
    "cmp r1, #3\n"                                                      \
    "bgt 9b\n"                                                          \
    "beq 12b\n"                                                         \
    "b 7b\n"                                                            \
    "10:\n"                                                             \
    "ldrd r2, r3, [lr, #60]\n"  /* low, high */                         \
    "ssub8 r4, r6, r2\n"                                                \
    "sel r6, r6, r2\n"                                                  \
    "ssub8 r4, r6, r3\n"                                                \
    "sel r6, r3, r6\n"                                                  \
    "b 3b\n"                                                            \
    "11:\n"                                                             \
    "add r2, lr, #156\n"  /* acc */                                     \
    "stmia r2, {r6-r9}\n"                                               \
    "mov r4, r0\n"                                                      \
    "mov r5, r1\n"                                                      \
    "mov r6, lr\n"                                                      \
    "mov r7, ip\n"                                                      \
    "mov r0, lr\n"                                                      \
    "bl fl_four_rest_dsp\n"                                             \
    "mov lr, r6\n"                                                      \
    "mov ip, r7\n"                                                      \
    "mov r6, r0\n"                                                      \
    "mov r0, r4\n"                                                      \
    "mov r1, r5\n"                                                      \
    "b 3b\n"

// ADR counts from the word it is in, and the assembler believes that a function begins at one: with -Os it need not.
__attribute__((naked, noinline, aligned(4))) void fl_four_dsp(fl_four_t *s __attribute__((unused))) {
    __asm__(FOUR(OWN));
}

__attribute__((naked, noinline, aligned(4))) void fl_four_shared_dsp(fl_four_t *s __attribute__((unused))) {
    __asm__(FOUR(SHARED));
}

_Static_assert(sizeof(fl_rectangle_t) == 44 && sizeof(fl_four_t) == 176, "the assembly has its offsets in it");

#else

static void own(const int8_t *x, const uint32_t *w, fl_four_t *s) {
    const uint32_t word = fl_word(x);
    const uint32_t even = fl_sxtab16(s->minus, word), odd = fl_sxtab16_odd(s->minus, word);
    s->acc[0] = fl_smlabb(even, w[0], s->acc[0]);
    s->acc[1] = fl_smlabb(odd, w[1], s->acc[1]);
    s->acc[2] = fl_smlatt(even, w[0], s->acc[2]);
    s->acc[3] = fl_smlatt(odd, w[1], s->acc[3]);
}

static void shared(const int8_t *x, const uint32_t *w, fl_four_t *s) {
    const uint32_t v = fl_sadd16((uint32_t)*x, s->minus);
    s->acc[0] = fl_smlabb(w[0], v, s->acc[0]);
    s->acc[1] = fl_smlabb(w[1], v, s->acc[1]);
    s->acc[2] = fl_smlatb(w[0], v, s->acc[2]);
    s->acc[3] = fl_smlatb(w[1], v, s->acc[3]);
}

static uint32_t outputs(const fl_four_t *s) {
    if (s->special & FL_FOUR_REST) {
        return fl_four_rest_dsp(s);
    }
    uint32_t word = 0;
    for (int32_t i = 0; i < 4; i++) {
        const fl_scale_t scale = {s->multiplier[i], s->down[i]};
        word |= (uint32_t)(uint8_t)fl_scale_near(s->acc[i], scale, s->twice_zero_1) << (8 * i);
    }
    return s->special & FL_FOUR_CLAMPED ? fl_min8(fl_max8(word, s->low), s->high) : word;
}

// Places count from the line's first tap, modulo 2^32 as on the processor: what lies behind the last pixel is computed,
// never read.
static void four(fl_four_t *s, void (*tap)(const int8_t *x, const uint32_t *w, fl_four_t *s)) {
    for (; s->next != s->end; s->next++) {
        fl_rectangle_t r = *s->next;
        r.out_first += s->channel;
        r.out_end += s->channel;
        r.x_first += s->x_channel;
        for (; r.lines > 0; r.lines--) {
            uint32_t x = 0;
            for (s->out = r.out_first; s->out != r.out_end; s->out += s->out_step) {
                memcpy(s->acc, s->bias, sizeof s->acc);
                const uint32_t *w = r.w;
                while (w != r.w_end) {
                    for (int32_t i = 0; i < r.taps; i++) {
                        tap(r.x_first + (x + (uint32_t)i * (uint32_t)s->x_tap), w, s);
                        w += 2;
                    }
                    w += r.w_skip / 4;
                    // as the assembly: nine taps end at the start of the third row, others behind the last
                    x += r.nine && w == r.w_end ? 0 : (uint32_t)s->x_row;
                }
                fl_put_word(s->out, outputs(s));
                x += (uint32_t)r.x_delta;
            }
            r.out_first += s->out_line;
            r.out_end += s->out_line;
            r.x_first = (const int8_t *)((uintptr_t)r.x_first + (uintptr_t)(intptr_t)s->x_line);
        }
    }
}

void fl_four_dsp(fl_four_t *s) {
    four(s, own);
}

void fl_four_shared_dsp(fl_four_t *s) {
    four(s, shared);
}

#endif

#else
typedef int fl_no_four_dsp_t;  // a translation unit may not be empty
#endif
