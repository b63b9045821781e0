// From accumulators to int8 with the DSP extension: 12 instructions an output.
#include "finish_dsp.h"
#include "kernels/variants.h"
#include "sum.h"

#if FL_KERNELS == 1

// The assembly has the offsets in it.
typedef struct {
    const int32_t *acc;
    const int32_t *b;       // of the first channel
    const fl_requant_t *r;
    int8_t *out;
    int8_t *out_end;        // of the first pixel
    int32_t pixels;
    int32_t out_gap;        // from the last output of a pixel to the first of the next
    int32_t out_step;
    int32_t twice_zero_1;   // 2 * zero point + 1
    uint32_t low, high;     // four times the clamp's limits
} fours_t;

#if FL_DSP_ASSEMBLY

// Two channels: their factors are loaded, sums doubled in `a` and `c`.
#define SCALE(a, c)                     \
    "ldmia r2!, {r8, r9, r10, r11}\n"   \
    "smmulr " a ", " a ", r8\n"         \
    "smmulr " c ", " c ", r10\n"        \
    "mvn r9, r9\n"                      \
    "mvn r11, r11\n"                    \
    "add " a ", " a ", " a ", asr #31\n" \
    "add " c ", " c ", " c ", asr #31\n" \
    "asr " a ", " a ", r9\n"            \
    "asr " c ", " c ", r11\n"           \
    "add " a ", " a ", ip\n"            \
    "add " c ", " c ", ip\n"            \
    "ssat " a ", #8, " a ", asr #1\n"   \
    "ssat " c ", #8, " c ", asr #1\n"

// Fours of channels of all pixels. Each four is read before it is written: the outputs may lie on the accumulators.
static __attribute__((naked, noinline)) void fours(const fours_t *s __attribute__((unused))) {
    __asm__(
        "push {r4-r11, lr}\n"
        "sub sp, sp, #44\n"
        "ldmia r0, {r1-r11}\n"
        "stmia sp, {r1-r11}\n"
        "mov r0, r1\n"
        "mov r1, r2\n"
        "mov r2, r3\n"
        "mov r3, r4\n"
        "mov lr, r5\n"
        "mov ip, r9\n"
        "1:\n"
        "ldmia r0!, {r4-r7}\n"
        "ldmia r1!, {r8-r11}\n"
        "add r4, r4, r8\n"
        "add r5, r5, r9\n"
        "add r6, r6, r10\n"
        "add r7, r7, r11\n"
        "qadd r4, r4, r4\n"
        "qadd r5, r5, r5\n"
        "qadd r6, r6, r6\n"
        "qadd r7, r7, r7\n"
        SCALE("r4", "r5")
        SCALE("r6", "r7")
        "ldrd r8, r9, [sp, #36]\n"  // low, high
        "bfi r4, r5, #8, #8\n"
        "bfi r6, r7, #8, #8\n"
        "pkhbt r4, r4, r6, lsl #16\n"
        "ssub8 r5, r4, r8\n"
        "sel r4, r4, r8\n"
        "ssub8 r5, r4, r9\n"
        "sel r4, r9, r4\n"
        "str r4, [r3], #4\n"
        "cmp r3, lr\n"
        "bne 1b\n"
        "ldrd r4, r5, [sp, #20]\n"  // pixels, out_gap
        "ldr r6, [sp, #28]\n"       // out_step
        "ldrd r1, r2, [sp, #4]\n"   // b, r
        "add r3, r3, r5\n"
        "add lr, lr, r6\n"
        "subs r4, r4, #1\n"
        "str r4, [sp, #20]\n"
        "bne 1b\n"
        "add sp, sp, #44\n"
        "pop {r4-r11, pc}\n");
}

_Static_assert(sizeof(fours_t) == 44 && sizeof(fl_requant_t) == 8, "the assembly has the offsets in it");

#else

static void fours(const fours_t *s) {
    const int32_t *acc = s->acc;
    int8_t *out = s->out;
    const int32_t channels = (int32_t)(s->out_end - s->out);
    for (int32_t i = 0; i < s->pixels; i++, out += s->out_step) {
        for (int32_t c = 0; c < channels; c += 4) {
            uint32_t word = 0;
            for (int32_t j = 0; j < 4; j++) {
                const uint32_t sum = (uint32_t)acc[c + j] + (uint32_t)s->b[c + j];
                const int32_t y = fl_scale_near(sum, fl_scale_of(s->r + c + j), s->twice_zero_1);
                word |= (uint32_t)(uint8_t)y << (8 * j);
            }
            fl_put_word(out + c, fl_min8(fl_max8(word, s->low), s->high));
        }
        acc += channels;
    }
}

#endif

// Whether the short end of finish_dsp.h serves all channels.
static int all_near(const fl_quant_t *q, int32_t channels) {
    const int32_t n = q->requant_stride ? channels : 1;
    uint32_t far = q->flags & FL_OP_SINGLE_ROUNDING;
    for (int32_t i = 0; i < n; i++) {
        far |= (uint32_t)~q->requant[i].shift >= FL_NEAR;
    }
    return !far;
}

void fl_finish_sums_dsp(const fl_quant_t *q, int32_t pixels, int32_t channels, const int32_t *b, const int32_t *acc,
                        int8_t *out, int32_t out_step) {
    if (!all_near(q, channels)) {
        fl_finish_sums_plain(q, pixels, channels, b, acc, out, out_step);
        return;
    }
    const int32_t quick = b && q->requant_stride ? channels & ~3 : 0;
    fours_t s = {
        .b = b,
        .r = q->requant,
        .pixels = channels == quick ? pixels : 1,
        .out_gap = out_step - channels,
        .out_step = out_step,
        .twice_zero_1 = 2 * q->out_zero + 1,
        .low = (uint8_t)q->act_min * 0x01010101u,
        .high = (uint8_t)q->act_max * 0x01010101u,
    };
    for (int32_t i = 0; i < pixels; i += s.pixels) {
        if (quick) {
            s.acc = acc;
            s.out = out;
            s.out_end = out + quick;
            fours(&s);
        }
        for (int32_t c = quick; c < channels; c++) {
            const fl_scale_t scale = fl_scale_of(q->requant + (uint32_t)c * q->requant_stride);
            const uint32_t sum = (uint32_t)acc[c] + (b ? (uint32_t)b[c] : 0u);
            const int32_t y = fl_scale_near(sum, scale, s.twice_zero_1);
            out[c] = (int8_t)(y < q->act_min ? q->act_min : y > q->act_max ? q->act_max : y);
        }
        acc += channels;
        out += out_step;
    }
}

#else
typedef int fl_no_sum_finish_dsp_t;  // a translation unit may not be empty
#endif
