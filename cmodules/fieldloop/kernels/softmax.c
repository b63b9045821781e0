// Softmax in fixed point, as TensorFlow Lite's reference has it (gemmlowp's exp and reciprocal).
//
// Qi.f: i integer bits, f fraction bits, in an int32_t. Differences to the row's maximum are Q5.26, their exponentials
// Q0.31, the sum of these Q12.19. The exponentials are worked out twice instead of being kept: no scratch memory.
#include "fieldloop/fl_kernels.h"
#include "requant.h"

#define EXP_MINUS_EIGHTH 1895147668  // exp(-1/8) in Q0.31
#define ONE_THIRD 715827883          // 1/3 in Q0.31

// exp(a) in Q0.31 for a in [-1/4, 0) in Q0.31: Taylor's expansion around -1/8.
static int32_t exp_small(int32_t a) {
    int32_t x = a + (1 << 28);
    int32_t x2 = fl_high_mul(x, x);
    int32_t x3 = fl_high_mul(x2, x);
    int32_t x4_over_4 = fl_divide_by_pot(fl_high_mul(x2, x2), 2);
    int32_t tail = fl_divide_by_pot(fl_high_mul(x4_over_4 + x3, ONE_THIRD) + x2, 1);
    return EXP_MINUS_EIGHTH + fl_high_mul(EXP_MINUS_EIGHTH, x + tail);
}

// exp(a) in Q0.31 for a in (-32, 0] in Q5.26.
static int32_t exp_negative(int32_t a) {
    static const int32_t steps[7] = {  // exp(-2^k) in Q0.31, k = -2..4
        1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242,
    };
    if (a == 0) {
        return INT32_MAX;
    }
    const int32_t quarter = 1 << 24;
    int32_t small = (a & (quarter - 1)) - quarter;
    int32_t rest = small - a;  // a whole number of quarters
    int32_t result = exp_small(small * 32);
    for (int32_t k = 0; k < 7; k++) {
        if (rest & (quarter << k)) {
            result = fl_high_mul(result, steps[k]);
        }
    }
    return result;
}

static int32_t shift_left_saturating(int32_t x, int32_t bits) {
    int32_t limit = INT32_MAX >> bits;
    if (x > limit) {
        return INT32_MAX;
    }
    return x < -limit - 1 ? INT32_MIN : x * (1 << bits);
}

// 1 / (1 + x) in Q0.31 for x in [0, 1) in Q0.31: three Newton-Raphson steps, in Q2.29.
static int32_t reciprocal_of_one_plus(int32_t x) {
    int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t y = 1515870810 + fl_high_mul(half, -1010580540);  // 48/17 - 32/17 half
    for (int32_t i = 0; i < 3; i++) {
        int32_t error = (1 << 29) - fl_high_mul(half, y);
        y += shift_left_saturating(fl_high_mul(y, error), 2);
    }
    return shift_left_saturating(y, 1);
}

static int32_t leading_zeros(uint32_t x) {  // x != 0
    int32_t n = 0;
    while (!(x & 0x80000000u)) {
        x <<= 1;
        n++;
    }
    return n;
}

static int32_t scaled(const fl_softmax_params_t *p, int32_t diff) {
    // wraps for diff 0 and a shift of 31 only, and to 0
    return fl_high_mul((int32_t)((uint32_t)diff << p->input_left_shift), p->input_multiplier);
}

static void softmax_row(const fl_softmax_params_t *p, int32_t cols, const int8_t *x, int8_t *out) {
    int32_t top = -128;
    for (int32_t c = 0; c < cols; c++) {
        top = x[c] > top ? x[c] : top;
    }
    int32_t sum = 0;
    for (int32_t c = 0; c < cols; c++) {
        int32_t diff = x[c] - top;
        if (diff >= p->diff_min) {
            sum += fl_divide_by_pot(exp_negative(scaled(p, diff)), 12);
        }
    }
    int32_t zeros = leading_zeros((uint32_t)sum);
    int32_t fraction = (int32_t)(((uint32_t)sum << zeros) - 0x80000000u);
    int32_t scale = reciprocal_of_one_plus(fraction);
    int32_t shift = 12 - zeros + 31 - 8;
    for (int32_t c = 0; c < cols; c++) {
        int32_t diff = x[c] - top;
        int32_t y = 0;
        // beyond 31 bits even the largest value rounds to 0 (rows of more than 500 equal logits)
        if (diff >= p->diff_min && shift <= 31) {
            y = fl_divide_by_pot(fl_high_mul(scale, exp_negative(scaled(p, diff))), shift);
        }
        out[c] = fl_clamp(y - 128, -128, 127);
    }
}

void fl_softmax(const fl_softmax_params_t *p, int32_t rows, int32_t cols, const int8_t *x, int8_t *out) {
    for (int32_t r = 0; r < rows; r++) {
        softmax_row(p, cols, x + r * cols, out + r * cols);
    }
}
