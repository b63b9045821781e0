// The instructions of Armv7E-M's DSP extension that the _dsp kernels are made of, and the same in plain C for a host
// that tests them. A pair is two int16 in a word, lower half first; all sums wrap.
//
// SXTB16 splits a word of four int8 into pairs of its bytes (0, 2) and, rotated by 8, (1, 3): the order in which the
// kernels keep widened inputs, so that nothing is ever put back into sequence.
#ifndef FIELDLOOP_KERNELS_DSP_H
#define FIELDLOOP_KERNELS_DSP_H

#include <stdint.h>
#include <string.h>

// Written for the M profile: what else has these instructions may not be in Thumb state.
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && __ARM_ARCH_PROFILE == 'M'
#define FL_DSP_ASSEMBLY 1
#else
#define FL_DSP_ASSEMBLY 0
#endif

// Four bytes from any address: one LDR, which Armv7E-M takes unaligned.
static inline uint32_t fl_word(const int8_t *p) {
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

static inline void fl_put_word(int8_t *p, uint32_t word) {
    memcpy(p, &word, 4);
}

// The pair (v, v), |v| < 2^15.
static inline uint32_t fl_pair_of(int32_t v) {
    return ((uint32_t)v & 0xffffu) | (uint32_t)v << 16;
}

#if FL_DSP_ASSEMBLY

#define FL_DSP_2(name, instruction)                                                        \
    static inline uint32_t name(uint32_t a, uint32_t b) {                                  \
        uint32_t r;                                                                        \
        __asm__(instruction : "=r"(r) : "r"(a), "r"(b));                                   \
        return r;                                                                          \
    }
#define FL_DSP_3(name, instruction)                                                        \
    static inline uint32_t name(uint32_t a, uint32_t b, uint32_t acc) {                    \
        uint32_t r;                                                                        \
        __asm__(instruction : "=r"(r) : "r"(a), "r"(b), "r"(acc));                         \
        return r;                                                                          \
    }

FL_DSP_2(fl_sxtab16, "sxtab16 %0, %1, %2")             // a + bytes 0, 2 of b
FL_DSP_2(fl_sxtab16_odd, "sxtab16 %0, %1, %2, ror #8")  // a + bytes 1, 3 of b
FL_DSP_3(fl_smlad, "smlad %0, %1, %2, %3")             // acc + both products
FL_DSP_3(fl_smlabb, "smlabb %0, %1, %2, %3")           // acc + lower a * lower b
FL_DSP_3(fl_smlatt, "smlatt %0, %1, %2, %3")           // acc + upper a * upper b
FL_DSP_3(fl_smlatb, "smlatb %0, %1, %2, %3")           // acc + upper a * lower b
FL_DSP_2(fl_smmulr, "smmulr %0, %1, %2")               // (a * b + 2^31) >> 32, signed
FL_DSP_2(fl_qadd, "qadd %0, %1, %2")                   // a + b, saturated, signed
FL_DSP_2(fl_sadd16, "sadd16 %0, %1, %2")               // pairs added

static inline uint32_t fl_sxtb16(uint32_t a) {
    uint32_t r;
    __asm__("sxtb16 %0, %1" : "=r"(r) : "r"(a));
    return r;
}

static inline uint32_t fl_sxtb16_odd(uint32_t a) {
    uint32_t r;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(r) : "r"(a));
    return r;
}

// clamp(a >> 1, -128, 127)
static inline int32_t fl_halve_to_int8(int32_t a) {
    int32_t r;
    __asm__("ssat %0, #8, %1, asr #1" : "=r"(r) : "r"(a) : "cc");
    return r;
}

// The larger of each of four int8.
static inline uint32_t fl_max8(uint32_t a, uint32_t b) {
    uint32_t r;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(r) : "r"(a), "r"(b) : "cc");
    return r;
}

// The smaller of each of four int8.
static inline uint32_t fl_min8(uint32_t a, uint32_t b) {
    uint32_t r;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %2, %1" : "=&r"(r) : "r"(a), "r"(b) : "cc");
    return r;
}

#else

static inline int32_t fl_lower(uint32_t pair) {
    return (int16_t)(uint16_t)pair;
}

static inline int32_t fl_upper(uint32_t pair) {
    return (int16_t)(uint16_t)(pair >> 16);
}

static inline uint32_t fl_pair(uint32_t lower, uint32_t upper) {
    return (lower & 0xffffu) | upper << 16;
}

static inline uint32_t fl_extend(uint32_t byte) {
    const int32_t v = (int8_t)(uint8_t)byte;
    return (uint32_t)v;
}

static inline uint32_t fl_sxtab16(uint32_t a, uint32_t b) {
    return fl_pair(a + fl_extend(b), (a >> 16) + fl_extend(b >> 16));
}

static inline uint32_t fl_sxtab16_odd(uint32_t a, uint32_t b) {
    return fl_sxtab16(a, b >> 8);
}

static inline uint32_t fl_sxtb16(uint32_t a) {
    return fl_sxtab16(0, a);
}

static inline uint32_t fl_sxtb16_odd(uint32_t a) {
    return fl_sxtab16(0, a >> 8);
}

static inline uint32_t fl_smlabb(uint32_t a, uint32_t b, uint32_t acc) {
    return acc + (uint32_t)(fl_lower(a) * fl_lower(b));
}

static inline uint32_t fl_smlatt(uint32_t a, uint32_t b, uint32_t acc) {
    return acc + (uint32_t)(fl_upper(a) * fl_upper(b));
}

static inline uint32_t fl_smlatb(uint32_t a, uint32_t b, uint32_t acc) {
    return acc + (uint32_t)(fl_upper(a) * fl_lower(b));
}

static inline uint32_t fl_smlad(uint32_t a, uint32_t b, uint32_t acc) {
    return fl_smlatt(a, b, fl_smlabb(a, b, acc));
}

static inline uint32_t fl_smmulr(uint32_t a, uint32_t b) {
    return (uint32_t)(((uint64_t)((int64_t)(int32_t)a * (int32_t)b) + 0x80000000u) >> 32);
}

static inline uint32_t fl_qadd(uint32_t a, uint32_t b) {
    const int64_t sum = (int64_t)(int32_t)a + (int32_t)b;
    return (uint32_t)(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
}

static inline uint32_t fl_sadd16(uint32_t a, uint32_t b) {
    return fl_pair(a + b, (a >> 16) + (b >> 16));
}

static inline int32_t fl_halve_to_int8(int32_t a) {
    a >>= 1;
    return a < -128 ? -128 : a > 127 ? 127 : a;
}

static inline uint32_t fl_choose8(uint32_t a, uint32_t b, int larger) {
    uint32_t r = 0;
    for (int i = 0; i < 32; i += 8) {
        const int8_t u = (int8_t)(uint8_t)(a >> i), v = (int8_t)(uint8_t)(b >> i);
        r |= (uint32_t)(uint8_t)((u >= v) == larger ? u : v) << i;
    }
    return r;
}

static inline uint32_t fl_max8(uint32_t a, uint32_t b) {
    return fl_choose8(a, b, 1);
}

static inline uint32_t fl_min8(uint32_t a, uint32_t b) {
    return fl_choose8(a, b, 0);
}

#endif

#endif
