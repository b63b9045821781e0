// Exponential, sigmoid and hyperbolic tangent in f32, of any number.
#include "exp.h"
#include "kernels/f32.h"

float fl_exp(float x) {
    if (x != x) {
        return x;
    }
    if (x < FL_EXP_LOWEST) {
        return 0.0f;
    }
    if (x > FL_EXP_HIGHEST) {  // one octave more, then infinity
        return x > FL_EXP_HIGHEST + 1.0f ? fl_power_of_two(127) * 2.0f : fl_exp_between(x - 1.0f) * 2.71828183f;
    }
    return fl_exp_between(x);
}

float fl_exp_minus_one(float x) {
    return x > -0.34f && x < 0.34f ? fl_exp_minus_one_small(x) : fl_exp(x) - 1.0f;
}

// Written so that nothing overflows and a small result keeps its digits.
float fl_sigmoid(float x) {
    if (x >= 0.0f) {
        return 1.0f / (1.0f + fl_exp(-x));
    }
    const float e = fl_exp(x);
    return e / (1.0f + e);
}

// Cephes: a polynomial near 0, where 1 - 2 / (e^2x + 1) loses digits.
float fl_tanh(float x) {
    const float magnitude = x < 0.0f ? -x : x;
    if (magnitude < 0.625f) {
        const float z = x * x;
        float p = -5.70498872745e-3f;
        p = p * z + 2.06390887954e-2f;
        p = p * z - 5.37397155531e-2f;
        p = p * z + 1.33314422036e-1f;
        p = p * z - 3.33332819422e-1f;
        return p * z * x + x;
    }
    if (!(magnitude < 10.0f)) {
        return x != x ? x : x < 0.0f ? -1.0f : 1.0f;
    }
    const float y = 1.0f - 2.0f / (fl_exp_between(2.0f * magnitude) + 1.0f);
    return x < 0.0f ? -y : y;
}
