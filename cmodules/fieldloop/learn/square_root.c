// The square root in f32, correctly rounded: by the FPU where there is one, else digit by digit.
#include <string.h>

#include "fieldloop/fl_backward.h"

#if defined(__ARM_FP) && (__ARM_FP & 4)

float fl_square_root(float v) {
    float root;
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(v));
    return root;
}

#else

// v = m * 2^(2e), m of 49 or 50 bits: floor(sqrt(m)) then has 25, and the last of them alone rounds it, because no root is
// half way between two f32: its square would be odd, and m ends in 25 zeros.
float fl_square_root(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    if (bits == 0 || bits >= 0x7f800000u) {  // 0; infinite, NaN (and what is negative: not for us)
        return v;
    }
    int32_t exponent = (int32_t)(bits >> 23);
    uint32_t mantissa = bits & 0x7fffffu;
    if (exponent == 0) {
        exponent = 1;
    } else {
        mantissa |= 0x800000u;
    }
    while (mantissa < 0x800000u) {
        mantissa <<= 1;
        exponent--;
    }
    // v = mantissa * 2^(exponent - 150); an even power of two is wanted
    exponent -= 150 + 25;
    uint64_t left = (uint64_t)mantissa << 25;
    if (exponent & 1) {
        left <<= 1;
        exponent--;
    }
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 48; bit != 0; bit >>= 2) {
        if (left >= root + bit) {
            left -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    // 25 bits, the lowest of them the half
    uint32_t rounded = (uint32_t)(root >> 1) + (uint32_t)(root & 1);
    bits = (uint32_t)(exponent / 2 + 1 + 150) << 23;
    bits += rounded - 0x800000u;  // a carry out of the mantissa raises the exponent
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

#endif
