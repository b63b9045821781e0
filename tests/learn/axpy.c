// The sums of learn/axpy.h as this processor has them against their plain form, bit by bit: every length and alignment, and
// numbers that vectors and flushing processors round otherwise: subnormals, and sums that nearly cancel.
#include "learn/axpy.h"

#include <stdio.h>
#include <string.h>

#include "fieldloop/fl_crc.h"

enum { FLOATS = 400, BYTES = 420, LONGEST = 40, ROUNDS = 2000 };

static float out[4][FLOATS], expected[4][FLOATS], weights[FLOATS];
static int8_t in[4][BYTES];
static uint64_t random_state = 1;

static uint32_t next(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static float of_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

// Either sign, and an exponent of `fields` from `field` on; never -0, which no sum of the learner holds.
static float one_of(uint32_t field, uint32_t fields) {
    uint32_t bits = (field + next() % fields) << 23 | (next() & 0x7fffffu);
    return bits ? of_bits(bits | (next() & 1) << 31) : 0.0f;
}

static float any(void) {
    switch (next() % 6) {
    case 0:
        return 0.0f;
    case 1:
        return one_of(0, 1);  // subnormal
    case 2:
        return one_of(1, 3);
    case 3:
        return one_of(24, 8);  // around 2^-100
    case 4:
        return one_of(200, 40);
    default:
        return one_of(110, 20);
    }
}

static void plain_taps(const fl_taps_of_8_t *b, float *to, const float *w, float s) {
    for (int32_t i = 0; i < b->rows * b->taps * 8; i++) {
        int32_t y = i / 8 / b->taps, t = i / 8 % b->taps, j = i % 8;
        float *at = to + y * b->out_row + t * b->out_step + j;
        *at = *at + s * w[y * b->w_row + t * 8 + j];
    }
}

static void compare(uint32_t round, const float s[4]) {
    const fl_block_t block = {.rows = (int32_t)(next() % 4),
                              .n = (int32_t)(round / 4 % (LONGEST + 1)),
                              .out_step = LONGEST + (int32_t)(next() % 9),
                              .in_step = LONGEST + (int32_t)(next() % 9),
                              .zero = next() % 4 ? (int32_t)(next() % 256) - 128 : 5};
    const int8_t *from[4] = {in[0] + next() % 4, in[1] + next() % 4, in[2] + next() % 4, in[3] + next() % 4};
    float *to[4] = {out[0] + next() % 4, out[1] + 1, out[2] + 2, out[3] + 3};
    float *plain[4] = {expected[0] + (to[0] - out[0]), expected[1] + 1, expected[2] + 2, expected[3] + 3};
    const fl_taps_of_8_t taps = {block.rows, 1 + (int32_t)(next() % 4), 8 + (int32_t)(next() % 9), 80, 32};
    switch (round % 4) {
    case 0:
        fl_axpy(&block, to[0], from[0], s[0]);
        fl_axpy_plain(&block, plain[0], from[0], s[0]);
        break;
    case 1:
        fl_axpy_four(&block, to[0], from, s);
        fl_axpy_four_plain(&block, plain[0], from, s);
        break;
    case 2:
        fl_axpy_to_four(to, from[0], s, (uint32_t)block.n);
        fl_axpy_to_four_plain(plain, from[0], s, (uint32_t)block.n);
        break;
    default:
        fl_axpy_taps_of_8(&taps, to[0], weights, s[0]);
        plain_taps(&taps, plain[0], weights, s[0]);
        break;
    }
}

int main(void) {
    uint32_t crc = 0, wrong = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        float s[4];
        for (int k = 0; k < 4; k++) {
            s[k] = next() % 3 ? any() : one_of(26, 4);  // on both sides of what axpy_mve.c leaves to plain C
            for (int i = 0; i < FLOATS; i++) {
                out[k][i] = any();
                weights[i] = (float)(int8_t)next();
            }
            for (int i = 0; i < BYTES; i++) {
                in[k][i] = (int8_t)(next() % 3 ? next() : 5);
            }
        }
        for (int i = 0; round % 8 < 4 && i < FLOATS; i++) {
            float nearly = s[0] * (float)in[0][i] * (1.0f + (float)(next() % 3) * 0x1p-23f);
            out[0][i] = 0.0f - nearly;
        }
        memcpy(expected, out, sizeof out);
        compare(round, s);
        wrong += memcmp(out, expected, sizeof out) != 0;
        crc = fl_crc32(crc, out, sizeof out);
    }
    printf("%d %lu %08lx\n", FL_AXPY, (unsigned long)wrong, (unsigned long)crc);
    return 0;
}
