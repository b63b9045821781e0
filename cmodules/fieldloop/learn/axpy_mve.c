// The sums of axpy.h by Armv8.1-M's vectors of four f32.
//
// Vectors take subnormal numbers for 0 and round what would be subnormal to 0; the rest of the learner does not. The bytes are
// the same where |s| >= 2^-100 and a product of 0 is not added at all. Proof. A product that is not 0 is then at least 2^-100;
// so are, to one bit less, sums' operands that can nearly cancel it, both are multiples of 2^-124, and so is what is left: 0,
// or no subnormal. An operand below 2^-126 is less than half of the distance from such a product to the next f32 on either
// side: to add it, or 0, is the same. What is smaller than 2^-100 goes to the plain form.
#include "learn/axpy.h"

#if FL_AXPY == 2

#include <string.h>

// The compiler itself is told not to have these instructions (+nomve.fp): it knows nothing of the proof.
__asm__(".arch_extension mve.fp");

static inline uint32_t bits_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}

static inline int is_large(float s) {
    return (bits_of(s) & 0x7fffffffu) >= (uint32_t)(127 - 100) << 23;
}

static inline int are_large(const float s[4]) {
    return is_large(s[0]) && is_large(s[1]) && is_large(s[2]) && is_large(s[3]);
}

void fl_axpy(const fl_block_t *block, float *out, const int8_t *in, float s) {
    if (!is_large(s)) {
        fl_axpy_plain(block, out, in, s);
        return;
    }
    const uint32_t factor = bits_of(s);
    const int32_t zero = block->zero;
    for (int32_t rows = block->rows; rows > 0; rows--) {
        float *to = out;
        const int8_t *from = in;
        __asm__ volatile(
            "dlstp.32 lr, %[n]\n\t"
            "1:\n\t"
            "vldrb.s32 q0, [%[from]], #4\n\t"
            "vldrw.u32 q2, [%[to]]\n\t"
            "vsub.i32 q0, q0, %[zero]\n\t"
            "vcvt.f32.s32 q1, q0\n\t"
            "vmul.f32 q1, q1, %[s]\n\t"
            "vpt.i32 ne, q0, zr\n\t"
            "vaddt.f32 q2, q2, q1\n\t"
            "vstrw.32 q2, [%[to]], #16\n\t"
            "letp lr, 1b"
            : [to] "+r"(to), [from] "+l"(from)
            : [n] "r"(block->n), [s] "r"(factor), [zero] "r"(zero)
            : "lr", "cc", "memory", "q0", "q1", "q2");
        out += block->out_step;
        in += block->in_step;
    }
}

// What four factors need, by one register.
typedef struct {
    float s[4];
    int32_t zero;
    uint32_t n;
} four_t;

// The factors to q4-q7, the zero point to q3, and a loop over n.
#define BEGIN                                   \
    "ldr lr, [%[k]]\n\t"                        \
    "vdup.32 q4, lr\n\t"                        \
    "ldr lr, [%[k], #4]\n\t"                    \
    "vdup.32 q5, lr\n\t"                        \
    "ldr lr, [%[k], #8]\n\t"                    \
    "vdup.32 q6, lr\n\t"                        \
    "ldr lr, [%[k], #12]\n\t"                   \
    "vdup.32 q7, lr\n\t"                        \
    "ldr lr, [%[k], #16]\n\t"                   \
    "vdup.32 q3, lr\n\t"                        \
    "ldr lr, [%[k], #20]\n\t"                   \
    "dlstp.32 lr, lr\n\t"                       \
    "1:\n\t"

#define ROW(row, factor)                        \
    "vldrb.s32 q0, [%[" row "]], #4\n\t"        \
    "vsub.i32 q0, q0, q3\n\t"                   \
    "vcvt.f32.s32 q1, q0\n\t"                   \
    "vmul.f32 q1, q1, " factor "\n\t"           \
    "vpt.i32 ne, q0, zr\n\t"                    \
    "vaddt.f32 q2, q2, q1\n\t"

void fl_axpy_four(const fl_block_t *block, float *out, const int8_t *const in[4], const float s[4]) {
    if (!are_large(s)) {
        fl_axpy_four_plain(block, out, in, s);
        return;
    }
    const four_t k = {{s[0], s[1], s[2], s[3]}, block->zero, (uint32_t)block->n};
    int32_t from = 0;
    for (int32_t rows = block->rows; rows > 0; rows--) {
        const int8_t *in0 = in[0] + from, *in1 = in[1] + from, *in2 = in[2] + from, *in3 = in[3] + from;
        float *to = out;
        __asm__ volatile(
            BEGIN
            "vldrw.u32 q2, [%[to]]\n\t"
            ROW("in0", "q4") ROW("in1", "q5") ROW("in2", "q6") ROW("in3", "q7")
            "vstrw.32 q2, [%[to]], #16\n\t"
            "letp lr, 1b"
            : [to] "+r"(to), [in0] "+l"(in0), [in1] "+l"(in1), [in2] "+l"(in2), [in3] "+l"(in3)
            : [k] "r"(&k)
            : "lr", "cc", "memory", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7");
        out += block->out_step;
        from += block->in_step;
    }
}

#define RUN(out, factor)                        \
    "vmul.f32 q2, q1, " factor "\n\t"             \
    "vldrw.u32 q3, [%[" out "]]\n\t"            \
    "vpt.i32 ne, q0, zr\n\t"                    \
    "vaddt.f32 q3, q3, q2\n\t"                  \
    "vstrw.32 q3, [%[" out "]], #16\n\t"

void fl_axpy_to_four(float *const out[4], const int8_t *in, const float s[4], uint32_t n) {
    if (!are_large(s)) {
        fl_axpy_to_four_plain(out, in, s, n);
        return;
    }
    const four_t k = {{s[0], s[1], s[2], s[3]}, 0, n};
    float *out0 = out[0], *out1 = out[1], *out2 = out[2], *out3 = out[3];
    __asm__ volatile(
        BEGIN
        "vldrb.s32 q0, [%[in]], #4\n\t"
        "vcvt.f32.s32 q1, q0\n\t"
        RUN("out0", "q4") RUN("out1", "q5") RUN("out2", "q6") RUN("out3", "q7")
        "letp lr, 1b"
        : [out0] "+r"(out0), [out1] "+r"(out1), [out2] "+r"(out2), [out3] "+r"(out3), [in] "+l"(in)
        : [k] "r"(&k)
        : "lr", "cc", "memory", "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7");
}

#endif
