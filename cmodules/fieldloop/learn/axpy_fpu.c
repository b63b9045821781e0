// The sums of axpy.h for processors with an FPU and the DSP instructions. What is saved is the way of an int8 to an f32, four
// instructions a number when loaded, centred, moved and converted one by one, and the loads and stores of f32 one by one.
// No vmla: it rounds as vmul and vadd do, but takes longer than both.
#include "learn/axpy.h"

#if FL_AXPY == 1

// Four int8 of `word`, centred, as f32 in four consecutive registers: the pairs of bytes (0, 2) and (1, 3) are widened to 16
// bits each; a lower half is converted where it is, an upper one is shifted down.
#define FOUR_OF(word, a, b, c, d)                                     \
    "sxtab16 %[t0], %[zeros], %[" word "]\n\t"                        \
    "sxtab16 %[t1], %[zeros], %[" word "], ror #8\n\t"                \
    "vmov s" a ", s" b ", %[t0], %[t1]\n\t"                           \
    "asr %[t0], %[t0], #16\n\t"                                      \
    "asr %[t1], %[t1], #16\n\t"                                      \
    "vmov s" c ", s" d ", %[t0], %[t1]\n\t"                           \
    "vcvt.f32.s16 s" a ", s" a ", #0\n\t"                             \
    "vcvt.f32.s16 s" b ", s" b ", #0\n\t"                             \
    "vcvt.f32.s32 s" c ", s" c "\n\t"                                 \
    "vcvt.f32.s32 s" d ", s" d "\n\t"

// s8-s11 += s0-s3 * scale, and s8-s15 += s0-s7 * scale: products first, so that none waits for the one before.
#define ADD_FOUR(scale)                                               \
    "vmul.f32 s0, s0, %[" scale "]\n\t"                               \
    "vmul.f32 s1, s1, %[" scale "]\n\t"                               \
    "vmul.f32 s2, s2, %[" scale "]\n\t"                               \
    "vmul.f32 s3, s3, %[" scale "]\n\t"                               \
    SUM_FOUR
#define SUM_FOUR                                                      \
    "vadd.f32 s8, s8, s0\n\t"                                         \
    "vadd.f32 s9, s9, s1\n\t"                                         \
    "vadd.f32 s10, s10, s2\n\t"                                       \
    "vadd.f32 s11, s11, s3\n\t"
#define ADD_EIGHT(scale)                                              \
    "vmul.f32 s0, s0, %[" scale "]\n\t"                               \
    "vmul.f32 s1, s1, %[" scale "]\n\t"                               \
    "vmul.f32 s2, s2, %[" scale "]\n\t"                               \
    "vmul.f32 s3, s3, %[" scale "]\n\t"                               \
    "vmul.f32 s4, s4, %[" scale "]\n\t"                               \
    "vmul.f32 s5, s5, %[" scale "]\n\t"                               \
    "vmul.f32 s6, s6, %[" scale "]\n\t"                               \
    "vmul.f32 s7, s7, %[" scale "]\n\t"                               \
    SUM_FOUR                                                          \
    "vadd.f32 s12, s12, s4\n\t"                                       \
    "vadd.f32 s13, s13, s5\n\t"                                       \
    "vadd.f32 s14, s14, s6\n\t"                                       \
    "vadd.f32 s15, s15, s7\n\t"

void fl_axpy(const fl_block_t *block, float *out, const int8_t *in, float s) {
    const uint32_t zeros = ((uint32_t)-block->zero & 0xffffu) * 0x10001u;
    const uint32_t n = (uint32_t)block->n;
    float *out_row = out;
    const int8_t *in_row = in;
    for (int32_t rows = block->rows; rows > 0; rows--) {
        out = out_row;
        in = in_row;
        out_row += block->out_step;
        in_row += block->in_step;
        uint32_t t0, t1, word0, word1;
        uint32_t left = n >> 3;
        if (left != 0) {
            __asm__ volatile(
                "1:\n\t"
                "ldr %[word0], [%[in]], #4\n\t"
                "ldr %[word1], [%[in]], #4\n\t"
                FOUR_OF("word0", "0", "1", "2", "3")
                FOUR_OF("word1", "4", "5", "6", "7")
                "vldmia %[out], {s8-s15}\n\t"
                ADD_EIGHT("s")
                "vstmia %[out]!, {s8-s15}\n\t"
                "subs %[left], #1\n\t"
                "bne 1b"
                : [out] "+r"(out), [in] "+r"(in), [left] "+r"(left), [t0] "=&r"(t0), [t1] "=&r"(t1),
                  [word0] "=&r"(word0), [word1] "=&r"(word1)
                : [s] "t"(s), [zeros] "r"(zeros)
                : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12",
                  "s13", "s14", "s15");
        }
        if (n & 4) {
            __asm__ volatile(
                "ldr %[word0], [%[in]], #4\n\t"
                FOUR_OF("word0", "0", "1", "2", "3")
                "vldmia %[out], {s8-s11}\n\t"
                ADD_FOUR("s")
                "vstmia %[out]!, {s8-s11}"
                : [out] "+r"(out), [in] "+r"(in), [t0] "=&r"(t0), [t1] "=&r"(t1), [word0] "=&r"(word0)
                : [s] "t"(s), [zeros] "r"(zeros)
                : "cc", "memory", "s0", "s1", "s2", "s3", "s8", "s9", "s10", "s11");
        }
        if (n & 2) {
            __asm__ volatile(
                "ldrsb %[t0], [%[in]], #1\n\t"
                "ldrsb %[t1], [%[in]], #1\n\t"
                "sxtah %[t0], %[t0], %[zeros]\n\t"
                "sxtah %[t1], %[t1], %[zeros]\n\t"
                "vmov s0, s1, %[t0], %[t1]\n\t"
                "vldmia %[out], {s8-s9}\n\t"
                "vcvt.f32.s32 s0, s0\n\t"
                "vcvt.f32.s32 s1, s1\n\t"
                "vmul.f32 s0, s0, %[s]\n\t"
                "vmul.f32 s1, s1, %[s]\n\t"
                "vadd.f32 s8, s8, s0\n\t"
                "vadd.f32 s9, s9, s1\n\t"
                "vstmia %[out]!, {s8-s9}"
                : [out] "+r"(out), [in] "+r"(in), [t0] "=&r"(t0), [t1] "=&r"(t1)
                : [s] "t"(s), [zeros] "r"(zeros)
                : "memory", "s0", "s1", "s8", "s9");
        }
        if (n & 1) {
            *out = *out + s * (float)(*in - block->zero);
        }
    }
}

// Four columns of one row onto s8-s11.
#define ROW(row, scale)                                               \
    "ldr %[word], [%[" row "]], #4\n\t"                               \
    FOUR_OF("word", "0", "1", "2", "3")                               \
    ADD_FOUR(scale)

void fl_axpy_four(const fl_block_t *block, float *out, const int8_t *const in[4], const float s[4]) {
    const uint32_t zeros = ((uint32_t)-block->zero & 0xffffu) * 0x10001u;
    const float s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    const int32_t n = block->n;
    int32_t from = 0;
    for (int32_t rows = block->rows; rows > 0; rows--) {
        const int8_t *in0 = in[0] + from, *in1 = in[1] + from, *in2 = in[2] + from, *in3 = in[3] + from;
        float *to = out;
        uint32_t left = (uint32_t)n >> 2;
        if (left != 0) {
            uint32_t t0, t1, word;
            __asm__ volatile(
                "1:\n\t"
                "vldmia %[to], {s8-s11}\n\t"
                ROW("in0", "s0") ROW("in1", "s1") ROW("in2", "s2") ROW("in3", "s3")
                "vstmia %[to]!, {s8-s11}\n\t"
                "subs %[left], #1\n\t"
                "bne 1b"
                : [to] "+r"(to), [in0] "+r"(in0), [in1] "+r"(in1), [in2] "+r"(in2), [in3] "+r"(in3), [left] "+r"(left),
                  [t0] "=&r"(t0), [t1] "=&r"(t1), [word] "=&r"(word)
                : [s0] "t"(s0), [s1] "t"(s1), [s2] "t"(s2), [s3] "t"(s3), [zeros] "r"(zeros)
                : "cc", "memory", "s0", "s1", "s2", "s3", "s8", "s9", "s10", "s11");
        }
        for (int32_t j = 0; j < (n & 3); j++) {
            float sum = to[j] + s0 * (float)(in0[j] - block->zero);
            sum = sum + s1 * (float)(in1[j] - block->zero);
            sum = sum + s2 * (float)(in2[j] - block->zero);
            to[j] = sum + s3 * (float)(in3[j] - block->zero);
        }
        out += block->out_step;
        from += block->in_step;
    }
}

// The weights in s0-s7 onto eight f32 of one run.
#define RUN(out, scale)                                                                       \
    "vldmia %[" out "], {s8-s15}\n\t"                                                         \
    "vmul.f32 s16, s0, %[" scale "]\n\t"                                                      \
    "vmul.f32 s17, s1, %[" scale "]\n\t"                                                      \
    "vmul.f32 s18, s2, %[" scale "]\n\t"                                                      \
    "vmul.f32 s19, s3, %[" scale "]\n\t"                                                      \
    "vmul.f32 s20, s4, %[" scale "]\n\t"                                                      \
    "vmul.f32 s21, s5, %[" scale "]\n\t"                                                      \
    "vmul.f32 s22, s6, %[" scale "]\n\t"                                                      \
    "vmul.f32 s23, s7, %[" scale "]\n\t"                                                      \
    "vadd.f32 s8, s8, s16\n\t"                                                                \
    "vadd.f32 s9, s9, s17\n\t"                                                                \
    "vadd.f32 s10, s10, s18\n\t"                                                              \
    "vadd.f32 s11, s11, s19\n\t"                                                              \
    "vadd.f32 s12, s12, s20\n\t"                                                              \
    "vadd.f32 s13, s13, s21\n\t"                                                              \
    "vadd.f32 s14, s14, s22\n\t"                                                              \
    "vadd.f32 s15, s15, s23\n\t"                                                              \
    "vstmia %[" out "]!, {s8-s15}\n\t"

// Two weights to s registers, still integers.
#define TWO(a, b)                                                                             \
    "ldrsb %[t0], [%[in]], #1\n\t"                                                            \
    "ldrsb %[t1], [%[in]], #1\n\t"                                                            \
    "vmov s" a ", s" b ", %[t0], %[t1]\n\t"
#define REAL(a) "vcvt.f32.s32 s" a ", s" a "\n\t"

void fl_axpy_to_four(float *const out[4], const int8_t *in, const float s[4], uint32_t n) {
    float *out0 = out[0], *out1 = out[1], *out2 = out[2], *out3 = out[3];
    const float s0 = s[0], s1 = s[1], s2 = s[2], s3 = s[3];
    uint32_t left = n >> 3;
    if (left != 0) {
        uint32_t t0, t1;
        __asm__ volatile(
            "1:\n\t"
            TWO("0", "1") TWO("2", "3") TWO("4", "5") TWO("6", "7")
            REAL("0") REAL("1") REAL("2") REAL("3") REAL("4") REAL("5") REAL("6") REAL("7")
            RUN("out0", "s0") RUN("out1", "s1") RUN("out2", "s2") RUN("out3", "s3")
            "subs %[left], #1\n\t"
            "bne 1b"
            : [out0] "+r"(out0), [out1] "+r"(out1), [out2] "+r"(out2), [out3] "+r"(out3), [in] "+r"(in),
              [left] "+r"(left), [t0] "=&r"(t0), [t1] "=&r"(t1)
            : [s0] "t"(s0), [s1] "t"(s1), [s2] "t"(s2), [s3] "t"(s3)
            : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13",
              "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23");
    }
    for (uint32_t j = 0; j < (n & 7); j++) {
        const float w = (float)*in++;
        *out0 = *out0 + s0 * w;
        *out1 = *out1 + s1 * w;
        *out2 = *out2 + s2 * w;
        *out3 = *out3 + s3 * w;
        out0++, out1++, out2++, out3++;
    }
}

void fl_axpy_taps_of_8(const fl_taps_of_8_t *block, float *out, const float *w, float s) {
    const int32_t step = block->out_step * 4;
    const int32_t taps = block->taps;
    for (int32_t rows = block->rows; rows > 0; rows--) {
        const float *from = w;
        float *to = out;
        int32_t left = taps;
        __asm__ volatile(
            "1:\n\t"
            "vldmia %[from]!, {s0-s7}\n\t"
            "vldmia %[to], {s8-s15}\n\t"
            ADD_EIGHT("s")
            "vstmia %[to], {s8-s15}\n\t"
            "add %[to], %[step]\n\t"
            "subs %[left], #1\n\t"
            "bne 1b"
            : [to] "+r"(to), [from] "+r"(from), [left] "+r"(left)
            : [s] "t"(s), [step] "r"(step)
            : "cc", "memory", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13",
              "s14", "s15");
        out += block->out_row;
        w += block->w_row;
    }
}

#endif
