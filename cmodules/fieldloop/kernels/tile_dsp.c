// The inner tile of the convolution, in assembly: 1.0 instruction a multiply-accumulate and 13 an output.
//
// Two accumulators a channel, one a pixel; a quad of inputs is one load for four words, and a word of weights is
// unpacked once for both pixels. That takes all fourteen registers, so what the end of a tile needs lies on the stack, in
// the order in which LDM takes it.
#include "tile_dsp.h"

#include "finish_dsp.h"
#include "kernels/variants.h"

#if FL_KERNELS == 1

// Pixel 0 of a channel in bits 0 to 7, pixel 1 in bits 16 to 23.
static inline uint32_t bytes_of(const fl_tile_t *s, const fl_requant_t *r, uint32_t acc0, uint32_t acc1) {
    const fl_scale_t scale = fl_scale_of(r);
    int32_t y0, y1;
    if ((uint32_t)scale.down < FL_NEAR) {
        y0 = fl_scale_near(acc0, scale, s->twice_zero_1);
        y1 = fl_scale_near(acc1, scale, s->twice_zero_1);
    } else if ((uint32_t)scale.down < FL_RIGHT) {
        y0 = fl_scale_far(acc0, scale, s->twice_zero_1);
        y1 = fl_scale_far(acc1, scale, s->twice_zero_1);
    } else {
        const int32_t c = (int32_t)(r - s->q->requant);
        y0 = fl_finish(s->q, NULL, c, acc0);
        y1 = fl_finish(s->q, NULL, c, acc1);
    }
    return (uint32_t)(uint8_t)y0 | (uint32_t)(uint8_t)y1 << 16;
}

// The outputs of a tile of which some scale is no short right shift: a halfword a pixel.
uint32_t fl_tile_rest_dsp(const fl_tile_t *s, const uint32_t acc[4]);  // [channel, pixel]

uint32_t fl_tile_rest_dsp(const fl_tile_t *s, const uint32_t acc[4]) {
    const uint32_t y = bytes_of(s, s->r, acc[0], acc[1]) | bytes_of(s, s->r + 1, acc[2], acc[3]) << 8;
    return s->clamped ? fl_min8(fl_max8(y, s->low), s->high) : y;
}

#if FL_DSP_ASSEMBLY

// 16 products: x in r0, weights in r1 and r10, sums in r6 to r9 (channel a of pixels 0 and 1, channel b of them)
#define QUAD                        \
    "ldmia r0!, {r2, r3, r4, r5}\n" \
    "ldr ip, [r1], #4\n"            \
    "sxtb16 lr, ip, ror #8\n"       \
    "sxtb16 ip, ip\n"               \
    "smlad r6, ip, r2, r6\n"        \
    "smlad r7, ip, r4, r7\n"        \
    "smlad r6, lr, r3, r6\n"        \
    "smlad r7, lr, r5, r7\n"        \
    "ldr ip, [r10], #4\n"           \
    "sxtb16 lr, ip, ror #8\n"       \
    "sxtb16 ip, ip\n"               \
    "smlad r8, ip, r2, r8\n"        \
    "smlad r9, ip, r4, r9\n"        \
    "smlad r8, lr, r3, r8\n"        \
    "smlad r9, lr, r5, r9\n"

__attribute__((naked, noinline)) void fl_tile_dsp(const fl_tile_t *tile __attribute__((unused))) {
    __asm__(
        // a copy of the tile at sp, words 16 to 19 for the sums
        "push {r4-r11, lr}\n"
        "sub sp, sp, #84\n"
        "mov ip, sp\n"
        "ldmia r0!, {r1-r8}\n"
        "stmia ip!, {r1-r8}\n"
        "ldmia r0, {r1-r8}\n"
        "stmia ip, {r1-r8}\n"
        "mov r1, r7\n"

        "1:\n"
        "ldrd r0, r3, [sp, #20]\n"   // x, b
        "ldrd r10, r11, [sp, #28]\n"  // k, x_16
        "add r10, r1, r10\n"
        "ldrd r6, r8, [r3], #8\n"
        "str r3, [sp, #24]\n"
        "mov r7, r6\n"
        "mov r9, r8\n"
        "cmp r0, r11\n"
        "beq 3f\n"
        "2:\n" QUAD QUAD QUAD QUAD
        "cmp r0, r11\n"
        "bne 2b\n"
        "3:\n"
        "ldr r11, [sp, #40]\n"  // x_end
        "cmp r0, r11\n"
        "bne 10f\n"

        "4:\n"
        "ldmia sp, {r0-r4}\n"           // r, out0, out1, twice_zero_1, out_end
        "ldmia r0!, {r5, r11, ip, lr}\n"  // multiplier and shift of a, of b
        "mvn r11, r11\n"
        "mvn lr, lr\n"
        "cmp r11, #20\n"
        "it ls\n"
        "cmpls lr, #20\n"
        "bhi 14f\n"
        "qadd r6, r6, r6\n"
        "qadd r7, r7, r7\n"
        "qadd r8, r8, r8\n"
        "qadd r9, r9, r9\n"
        "smmulr r6, r6, r5\n"
        "smmulr r7, r7, r5\n"
        "smmulr r8, r8, ip\n"
        "smmulr r9, r9, ip\n"
        "add r6, r6, r6, asr #31\n"
        "add r7, r7, r7, asr #31\n"
        "add r8, r8, r8, asr #31\n"
        "add r9, r9, r9, asr #31\n"
        "asr r6, r6, r11\n"
        "asr r7, r7, r11\n"
        "asr r8, r8, lr\n"
        "asr r9, r9, lr\n"
        "add r6, r6, r3\n"
        "add r7, r7, r3\n"
        "add r8, r8, r3\n"
        "add r9, r9, r3\n"
        "ssat r6, #8, r6, asr #1\n"
        "ssat r7, #8, r7, asr #1\n"
        "ssat r8, #8, r8, asr #1\n"
        "ssat r9, #8, r9, asr #1\n"
        "bfi r6, r8, #8, #8\n"
        "bfi r7, r9, #8, #8\n"
        "ldr r5, [sp, #52]\n"  // clamped
        "cbnz r5, 13f\n"
        "5:\n"
        "strh r6, [r1], #2\n"
        "strh r7, [r2], #2\n"
        "cmp r1, r4\n"
        "stmia sp, {r0-r2}\n"
        "mov r1, r10\n"  // channel b's weights end where the next channel's begin
        "bne 1b\n"
        "add sp, sp, #84\n"
        "pop {r4-r11, pc}\n"

        "13:\n"
        "pkhbt r6, r6, r7, lsl #16\n"
        "ldrd r8, r9, [sp, #44]\n"  // low, high
        "ssub8 r5, r6, r8\n"
        "sel r6, r6, r8\n"
        "ssub8 r5, r6, r9\n"
        "sel r6, r9, r6\n"
        "lsr r7, r6, #16\n"
        "b 5b\n"

        "14:\n"
        "add r1, sp, #64\n"
        "stmia r1, {r6-r9}\n"
        "mov r0, sp\n"
        "bl fl_tile_rest_dsp\n"
        "mov r6, r0\n"
        "lsr r7, r0, #16\n"
        "ldmia sp, {r0-r4}\n"
        "add r0, r0, #16\n"
        "b 5b\n"

        "10:\n"
        "ldr r11, [sp, #36]\n"  // x_4
        "cmp r0, r11\n"
        "beq 12f\n"
        "11:\n" QUAD
        "cmp r0, r11\n"
        "bne 11b\n"
        "12:\n"
        "ldr r11, [sp, #40]\n"  // x_end
        "cmp r0, r11\n"
        "beq 4b\n"
        "ldr r2, [r0], #4\n"  // the tail: a pair of one element of both pixels
        "ldrsb r3, [r1], #1\n"
        "ldrsb r4, [r10], #1\n"
        "smlabb r6, r2, r3, r6\n"
        "smlatb r7, r2, r3, r7\n"
        "smlabb r8, r2, r4, r8\n"
        "smlatb r9, r2, r4, r9\n"
        "b 12b\n");
}

_Static_assert(sizeof(fl_tile_t) == 64 && sizeof(fl_requant_t) == 8, "the assembly has its offsets in it");

#else

void fl_tile_dsp(const fl_tile_t *tile) {
    fl_tile_t s = *tile;
    while (s.out0 != s.out_end) {
        uint32_t acc[4] = {(uint32_t)s.b[0], (uint32_t)s.b[0], (uint32_t)s.b[1], (uint32_t)s.b[1]};
        for (int32_t c = 0; c < 2; c++) {
            uint32_t *sum = acc + 2 * c;
            for (const uint32_t *x = s.x; x != s.x_4; x += 4) {
                const uint32_t word = fl_word(s.w);
                const uint32_t even = fl_sxtb16(word), odd = fl_sxtb16_odd(word);
                sum[0] = fl_smlad(odd, x[1], fl_smlad(even, x[0], sum[0]));
                sum[1] = fl_smlad(odd, x[3], fl_smlad(even, x[2], sum[1]));
                s.w += 4;
            }
            for (const uint32_t *x = s.x_4; x != s.x_end; x++) {
                const uint32_t both = fl_word((const int8_t *)x), v = (uint32_t)*s.w++;
                sum[0] = fl_smlabb(both, v, sum[0]);
                sum[1] = fl_smlatb(both, v, sum[1]);
            }
        }
        const fl_scale_t a = fl_scale_of(s.r), b = fl_scale_of(s.r + 1);
        uint32_t y = 0;  // pixel 0, then 1; in each channel a, then b
        if ((uint32_t)a.down < FL_NEAR && (uint32_t)b.down < FL_NEAR) {
            for (int32_t i = 0; i < 4; i++) {
                const int32_t v = fl_scale_near(acc[(i & 1) * 2 + (i >> 1)], i & 1 ? b : a, s.twice_zero_1);
                y |= (uint32_t)(uint8_t)v << (8 * i);
            }
            if (s.clamped) {
                y = fl_min8(fl_max8(y, s.low), s.high);
            }
        } else {
            y = fl_tile_rest_dsp(&s, acc);
        }
        s.out0[0] = (int8_t)(uint8_t)y;
        s.out0[1] = (int8_t)(uint8_t)(y >> 8);
        s.out1[0] = (int8_t)(uint8_t)(y >> 16);
        s.out1[1] = (int8_t)(uint8_t)(y >> 24);
        s.out0 += 2;
        s.out1 += 2;
        s.b += 2;
        s.r += 2;
    }
}

#endif

#else
typedef int fl_no_tile_dsp_t;  // a translation unit may not be empty
#endif
