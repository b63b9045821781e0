// The instructions of Armv8.1-M's vector extension (Helium) that the _mve kernels are made of, by the names of arm_mve.h,
// and the same in plain C for a host that tests them. Integers only. Of what is written in assembler, the C beside it
// computes the same with the functions at the end.
#ifndef FIELDLOOP_KERNELS_MVE_H
#define FIELDLOOP_KERNELS_MVE_H

#include <stdint.h>
#include <string.h>

#include "fieldloop/fl_image.h"

#if defined(__ARM_FEATURE_MVE)

#include <arm_mve.h>

#else

typedef struct {
    int8_t v[16];
} int8x16_t;
typedef struct {
    int8x16_t val[4];
} int8x16x4_t;
typedef struct {
    int16_t v[8];
} int16x8_t;
typedef struct {
    uint16_t v[8];
} uint16x8_t;
typedef struct {
    int32_t v[4];
} int32x4_t;
typedef struct {
    uint32_t v[4];
} uint32x4_t;
typedef uint16_t mve_pred16_t;  // a bit a byte

#define FL_LANES(n) for (int32_t i = 0; i < (n); i++)

static inline int32_t fl_saturate(int64_t v) {
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

static inline mve_pred16_t vctp8q(uint32_t n) {
    return (mve_pred16_t)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}

static inline mve_pred16_t vctp16q(uint32_t n) {
    return vctp8q(n >= 8 ? 16 : 2 * n);
}

static inline mve_pred16_t vctp32q(uint32_t n) {
    return vctp8q(n >= 4 ? 16 : 4 * n);
}

static inline int8x16_t vdupq_n_s8(int8_t a) {
    int8x16_t r;
    FL_LANES(16) r.v[i] = a;
    return r;
}

static inline int16x8_t vdupq_n_s16(int16_t a) {
    int16x8_t r;
    FL_LANES(8) r.v[i] = a;
    return r;
}

static inline int32x4_t vdupq_n_s32(int32_t a) {
    int32x4_t r;
    FL_LANES(4) r.v[i] = a;
    return r;
}

static inline int8x16_t vldrbq_s8(const int8_t *p) {
    int8x16_t r;
    memcpy(r.v, p, 16);
    return r;
}

static inline int8x16_t vldrbq_z_s8(const int8_t *p, mve_pred16_t m) {
    int8x16_t r;
    FL_LANES(16) r.v[i] = m >> i & 1 ? p[i] : 0;
    return r;
}

static inline void vstrbq_s8(int8_t *p, int8x16_t a) {
    memcpy(p, a.v, 16);
}

static inline void vstrbq_p_s8(int8_t *p, int8x16_t a, mve_pred16_t m) {
    FL_LANES(16) {
        if (m >> i & 1) {
            p[i] = a.v[i];
        }
    }
}

static inline void vst4q_s8(int8_t *p, int8x16x4_t a) {
    FL_LANES(64) p[i] = a.val[i % 4].v[i / 4];
}

// Widening loads, narrowing stores; a lane of 16 or 32 bits has 2 or 4 bits of the predicate.
static inline int16x8_t vldrbq_z_s16(const int8_t *p, mve_pred16_t m) {
    int16x8_t r;
    FL_LANES(8) r.v[i] = m >> 2 * i & 1 ? p[i] : 0;
    return r;
}

static inline int32x4_t vldrbq_s32(const int8_t *p) {
    int32x4_t r;
    FL_LANES(4) r.v[i] = p[i];
    return r;
}

static inline int32x4_t vldrbq_z_s32(const int8_t *p, mve_pred16_t m) {
    int32x4_t r;
    FL_LANES(4) r.v[i] = m >> 4 * i & 1 ? p[i] : 0;
    return r;
}

static inline int16x8_t vldrbq_gather_offset_s16(const int8_t *p, uint16x8_t at) {
    int16x8_t r;
    FL_LANES(8) r.v[i] = p[at.v[i]];
    return r;
}

static inline void vstrbq_s16(int8_t *p, int16x8_t a) {
    FL_LANES(8) p[i] = (int8_t)a.v[i];
}

static inline void vstrbq_s32(int8_t *p, int32x4_t a) {
    FL_LANES(4) p[i] = (int8_t)a.v[i];
}

static inline void vstrbq_p_s32(int8_t *p, int32x4_t a, mve_pred16_t m) {
    FL_LANES(4) {
        if (m >> 4 * i & 1) {
            p[i] = (int8_t)a.v[i];
        }
    }
}

static inline uint16x8_t vldrhq_u16(const uint16_t *p) {
    uint16x8_t r;
    memcpy(r.v, p, 16);
    return r;
}

static inline int32x4_t vldrhq_s32(const int16_t *p) {
    int32x4_t r;
    FL_LANES(4) r.v[i] = p[i];
    return r;
}

static inline void vstrhq_s16(int16_t *p, int16x8_t a) {
    memcpy(p, a.v, 16);
}

static inline int32x4_t vldrwq_s32(const int32_t *p) {
    int32x4_t r;
    memcpy(r.v, p, 16);
    return r;
}

static inline int32x4_t vldrwq_z_s32(const int32_t *p, mve_pred16_t m) {
    int32x4_t r;
    FL_LANES(4) r.v[i] = m >> 4 * i & 1 ? p[i] : 0;
    return r;
}

static inline uint32x4_t vldrwq_u32(const uint32_t *p) {
    uint32x4_t r;
    memcpy(r.v, p, 16);
    return r;
}

static inline void vstrwq_s32(int32_t *p, int32x4_t a) {
    memcpy(p, a.v, 16);
}

static inline void vstrwq_scatter_offset_s32(int32_t *p, uint32x4_t at, int32x4_t a) {
    FL_LANES(4) memcpy((int8_t *)p + at.v[i], &a.v[i], 4);
}

static inline int8x16_t vmaxq_s8(int8x16_t a, int8x16_t b) {
    FL_LANES(16) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}

static inline int8x16_t vminq_s8(int8x16_t a, int8x16_t b) {
    FL_LANES(16) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}

static inline int32x4_t vmaxq_s32(int32x4_t a, int32x4_t b) {
    FL_LANES(4) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}

static inline int32x4_t vminq_s32(int32x4_t a, int32x4_t b) {
    FL_LANES(4) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}

static inline int16x8_t vaddq_s16(int16x8_t a, int16x8_t b) {
    FL_LANES(8) a.v[i] = (int16_t)(uint16_t)(a.v[i] + b.v[i]);
    return a;
}

static inline int32x4_t vaddq_s32(int32x4_t a, int32x4_t b) {
    FL_LANES(4) a.v[i] = (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i]);
    return a;
}

static inline int32x4_t vaddq_n_s32(int32x4_t a, int32_t b) {
    return vaddq_s32(a, vdupq_n_s32(b));
}

static inline int32x4_t vsubq_s32(int32x4_t a, int32x4_t b) {
    FL_LANES(4) a.v[i] = (int32_t)((uint32_t)a.v[i] - (uint32_t)b.v[i]);
    return a;
}

static inline int32x4_t vabsq_s32(int32x4_t a) {
    FL_LANES(4) a.v[i] = (int32_t)(a.v[i] < 0 ? 0u - (uint32_t)a.v[i] : (uint32_t)a.v[i]);
    return a;
}

static inline int32x4_t veorq_s32(int32x4_t a, int32x4_t b) {
    FL_LANES(4) a.v[i] ^= b.v[i];
    return a;
}

static inline int32x4_t vshlq_n_s32(int32x4_t a, int32_t n) {
    FL_LANES(4) a.v[i] = (int32_t)((uint32_t)a.v[i] << n);
    return a;
}

static inline int32x4_t vmulhq_s32(int32x4_t a, int32x4_t b) {  // the upper half
    FL_LANES(4) a.v[i] = (int32_t)(((int64_t)a.v[i] * b.v[i]) >> 32);
    return a;
}

static inline int32x4_t vmulq_s32(int32x4_t a, int32x4_t b) {
    FL_LANES(4) a.v[i] = (int32_t)((uint32_t)a.v[i] * (uint32_t)b.v[i]);
    return a;
}

static inline int32x4_t vshlq_r_s32(int32x4_t a, int32_t n) {
    FL_LANES(4) a.v[i] = n >= 0 ? (int32_t)((uint32_t)a.v[i] << n) : a.v[i] >> -n;
    return a;
}

static inline int32x4_t vshrq_n_s32(int32x4_t a, int32_t n) {
    FL_LANES(4) a.v[i] >>= n < 32 ? n : 31;
    return a;
}

static inline int32x4_t vrshlq_n_s32(int32x4_t a, int32_t n) {  // n <= 0
    FL_LANES(4) a.v[i] = n ? (int32_t)(((int64_t)a.v[i] + ((int64_t)1 << (-n - 1))) >> -n) : a.v[i];
    return a;
}

static inline int32x4_t vqrdmulhq_n_s32(int32x4_t a, int32_t b) {
    FL_LANES(4) a.v[i] = fl_saturate(((int64_t)a.v[i] * b + (1 << 30)) >> 31);
    return a;
}

// sum + (a * b rounded to its upper half, doubled)
static inline int32x4_t vqrdmlahq_n_s32(int32x4_t sum, int32x4_t a, int32_t b) {
    FL_LANES(4) sum.v[i] = fl_saturate(((int64_t)a.v[i] * b + (1 << 30) + (int64_t)sum.v[i] * ((int64_t)1 << 31)) >> 31);
    return sum;
}

static inline int32_t vmladavaq_s8(int32_t sum, int8x16_t a, int8x16_t b) {
    FL_LANES(16) sum = (int32_t)((uint32_t)sum + (uint32_t)(a.v[i] * b.v[i]));
    return sum;
}

static inline int32_t vaddvaq_s8(int32_t sum, int8x16_t a) {
    FL_LANES(16) sum = (int32_t)((uint32_t)sum + (uint32_t)a.v[i]);
    return sum;
}

// What the assembler of the convolutions does with one accumulator, step by step; clamped to all of int8.
static inline int8_t fl_finish_as_mve(uint32_t acc, fl_requant_t r, int32_t zero) {
    const int32_t right = r.shift < 0 ? r.shift : 0;
    const int32x4_t q = vshlq_r_s32(vdupq_n_s32((int32_t)acc), r.shift > 0 ? r.shift : 0);
    int32x4_t y = vmulq_s32(vshrq_n_s32(q, 31), vdupq_n_s32(right < 0));
    y = vrshlq_n_s32(vqrdmlahq_n_s32(y, q, r.multiplier), right);
    const int32_t half = y.v[0] > INT16_MAX ? INT16_MAX : y.v[0] < INT16_MIN ? INT16_MIN : y.v[0];
    const int32_t v = half + zero;
    return (int8_t)(v > 127 ? 127 : v < -128 ? -128 : v);
}

#endif
#endif
