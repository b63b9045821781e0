// The inner loop of the fully connected layer, in assembly: 23 instructions for four inputs by four rows.
#include "rows_dsp.h"

#include "finish_dsp.h"
#include "kernels/variants.h"

#if FL_KERNELS == 1

// The four outputs of s->acc where a scale is no short right shift.
uint32_t fl_rows_rest_dsp(const fl_rows_t *s);

uint32_t fl_rows_rest_dsp(const fl_rows_t *s) {
    fl_quant_t q = *s->q;
    q.requant = s->r;  // of these four rows
    q.requant_stride = 1;
    uint32_t word = 0;
    for (int32_t i = 0; i < 4; i++) {
        word |= (uint32_t)(uint8_t)fl_finish(&q, NULL, i, s->acc[i]) << (8 * i);
    }
    return word;
}

#if FL_DSP_ASSEMBLY

// One row's four products: inputs in r2 and r3, its word of weights at an address made of r1 and the step r10, or of r11.
#define ROW(weights, sum)             \
    "ldr r4, " weights "\n"           \
    "sxtb16 r5, r4, ror #8\n"         \
    "sxtb16 r4, r4\n"                 \
    "smlad " sum ", r2, r4, " sum "\n" \
    "smlad " sum ", r3, r5, " sum "\n"

#define QUAD                        \
    "ldr r2, [r0], #4\n"            \
    "sxtab16 r3, ip, r2, ror #8\n"  \
    "sxtab16 r2, ip, r2\n"          \
    ROW("[r1, r10]", "r7")          \
    ROW("[r1, r10, lsl #1]", "r8")  \
    ROW("[r1], #4", "r6")           \
    ROW("[r11], #4", "r9")

__attribute__((naked, noinline)) void fl_rows_dsp(fl_rows_t *s __attribute__((unused))) {
    __asm__(
        "push {r0, r4-r11, lr}\n"
        "ldr r1, [r0, #64]\n"  // w

        "1:\n"
        "ldr r5, [sp]\n"
        "ldrd r2, r3, [r5]\n"  // b, b_step
        "ldmia r2, {r6-r9}\n"
        "add r2, r2, r3\n"
        "str r2, [r5]\n"
        "ldrd r10, ip, [r5, #32]\n"  // k, minus
        "ldrd r0, lr, [r5, #16]\n"   // x, x_16
        "add r11, r1, r10, lsl #1\n"
        "add r11, r11, r10\n"
        "cmp r0, lr\n"
        "beq 3f\n"
        "2:\n" QUAD QUAD QUAD QUAD
        "cmp r0, lr\n"
        "bne 2b\n"
        "3:\n"
        "ldr r5, [sp]\n"
        "ldr lr, [r5, #28]\n"  // x_end
        "cmp r0, lr\n"
        "bne 6f\n"

        "4:\n"
        "ldrd r0, r1, [r5, #8]\n"  // r, r_step
        "ldr r10, [r5, #52]\n"     // special
        "ldr ip, [r5, #48]\n"      // twice_zero_1
        "cmp r10, #1\n"
        "bhi 11f\n"
        "add r1, r0, r1\n"
        "str r1, [r5, #8]\n"
        "ldmia r0!, {r1-r4}\n"  // multiplier and shift of two rows
        "qadd r6, r6, r6\n"
        "qadd r7, r7, r7\n"
        "qadd r8, r8, r8\n"
        "qadd r9, r9, r9\n"
        "mvn r2, r2\n"
        "mvn r4, r4\n"
        "smmulr r6, r6, r1\n"
        "smmulr r7, r7, r3\n"
        "add r6, r6, r6, asr #31\n"
        "add r7, r7, r7, asr #31\n"
        "asr r6, r6, r2\n"
        "asr r7, r7, r4\n"
        "ldmia r0, {r1-r4}\n"
        "mvn r2, r2\n"
        "mvn r4, r4\n"
        "smmulr r8, r8, r1\n"
        "smmulr r9, r9, r3\n"
        "add r8, r8, r8, asr #31\n"
        "add r9, r9, r9, asr #31\n"
        "asr r8, r8, r2\n"
        "asr r9, r9, r4\n"
        "add r6, r6, ip\n"
        "add r7, r7, ip\n"
        "add r8, r8, ip\n"
        "add r9, r9, ip\n"
        "ssat r6, #8, r6, asr #1\n"
        "ssat r7, #8, r7, asr #1\n"
        "ssat r8, #8, r8, asr #1\n"
        "ssat r9, #8, r9, asr #1\n"
        "bfi r6, r7, #8, #8\n"
        "bfi r6, r8, #16, #8\n"
        "bfi r6, r9, #24, #8\n"
        "beq 10f\n"  // special is 1
        "5:\n"
        "ldrd r2, r3, [r5, #40]\n"  // out, out_end
        "str r6, [r2], #4\n"
        "mov r1, r11\n"  // the fourth row ends where the next begins
        "cmp r2, r3\n"
        "str r2, [r5, #40]\n"
        "bne 1b\n"
        "pop {r0, r4-r11, pc}\n"

        "6:\n"
        "ldr lr, [r5, #24]\n"  // x_4
        "cmp r0, lr\n"
        "beq 8f\n"
        "7:\n" QUAD
        "cmp r0, lr\n"
        "bne 7b\n"
        "8:\n"
        "ldr r5, [sp]\n"
        "ldr lr, [r5, #28]\n"  // x_end
        "9:\n"
        "cmp r0, lr\n"
        "beq 4b\n"
        "ldrsb r2, [r0], #1\n"
        "sadd16 r2, r2, ip\n"
        "ldrsb r3, [r1, r10]\n"
        "ldrsb r4, [r1, r10, lsl #1]\n"
        "smlabb r7, r2, r3, r7\n"
        "smlabb r8, r2, r4, r8\n"
        "ldrsb r3, [r1], #1\n"
        "ldrsb r4, [r11], #1\n"
        "smlabb r6, r2, r3, r6\n"
        "smlabb r9, r2, r4, r9\n"
        "b 9b\n"

        "10:\n"
        "ldrd r2, r3, [r5, #56]\n"  // low, high
        "ssub8 r4, r6, r2\n"
        "sel r6, r6, r2\n"
        "ssub8 r4, r6, r3\n"
        "sel r6, r3, r6\n"
        "b 5b\n"

        "11:\n"
        "add r2, r5, #68\n"  // acc
        "stmia r2, {r6-r9}\n"
        "mov r4, r1\n"
        "mov r0, r5\n"
        "bl fl_rows_rest_dsp\n"
        "mov r6, r0\n"
        "ldr r0, [r5, #8]\n"
        "add r0, r0, r4\n"
        "str r0, [r5, #8]\n"
        "b 5b\n");
}

_Static_assert(sizeof(fl_rows_t) == 88, "the assembly has its offsets in it");

#else

void fl_rows_dsp(fl_rows_t *s) {
    for (; s->out != s->out_end; s->out += 4) {
        uint32_t word = 0;
        for (int32_t i = 0; i < 4; i++) {
            uint32_t sum = (uint32_t)s->b[i];
            const int8_t *x = s->x;
            for (; x != s->x_4; x += 4) {
                const uint32_t v = fl_word(x), w = fl_word(s->w);
                sum = fl_smlad(fl_sxtab16(s->minus, v), fl_sxtb16(w), sum);
                sum = fl_smlad(fl_sxtab16_odd(s->minus, v), fl_sxtb16_odd(w), sum);
                s->w += 4;
            }
            for (; x != s->x_end; x++) {
                sum = fl_smlabb(fl_sadd16((uint32_t)*x, s->minus), (uint32_t)*s->w++, sum);
            }
            s->acc[i] = sum;
            const int32_t y = s->special & FL_ROWS_REST ? 0 : fl_scale_near(sum, fl_scale_of(&s->r[i]), s->twice_zero_1);
            word |= (uint32_t)(uint8_t)y << (8 * i);
        }
        if (s->special & FL_ROWS_REST) {
            word = fl_rows_rest_dsp(s);
        } else if (s->special & FL_ROWS_CLAMPED) {
            word = fl_min8(fl_max8(word, s->low), s->high);
        }
        fl_put_word(s->out, word);
        s->b = (const int32_t *)(const void *)((const char *)s->b + s->b_step);
        s->r = (const fl_requant_t *)(const void *)((const char *)s->r + s->r_step);
    }
}

#endif

#else
typedef int fl_no_rows_dsp_t;  // a translation unit may not be empty
#endif
