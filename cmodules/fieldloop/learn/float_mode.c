// Does this processor compute f32 as IEEE 754 says? Asked by arithmetic, not by reading a control register, so that
// the same lines work on x86-64, on an FPU of Arm and on soft float.
#include "fieldloop/fl_backward.h"
#include "fieldloop/fl_error.h"

int fl_float_mode_check(void) {
    // volatile: the compiler must leave the operations to the processor
    volatile float smallest_normal = 1.17549435e-38f;
    volatile float half = 0.5f;
    volatile float subnormal = smallest_normal * half;  // 0 under flush-to-zero
    volatile float doubled = subnormal + subnormal;     // 0 under denormals-are-zero
    if (subnormal == 0.0f || doubled != smallest_normal) {
        return FL_ENOTSUP;
    }
    volatile float one = 1.0f;
    volatile float half_ulp = 5.9604645e-8f;  // 2^-24: a tie, and ties go to even
    volatile float up = one + half_ulp;
    volatile float odd = one + 3.0f * half_ulp;
    if (up != 1.0f || odd != 1.00000024f) {
        return FL_ENOTSUP;
    }
    return FL_OK;
}
