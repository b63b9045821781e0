// Chance, buffers of exact size, and comparisons of bytes: what the driver of sum_kernels.c checks with.
#ifndef TESTS_CORE_SUM_BUFFERS_H
#define TESTS_CORE_SUM_BUFFERS_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chance.h"

typedef struct {
    const char *name;
    long cases, bytes, lively;
} tally_t;

static void fail(const tally_t *t, const char *what) {
    printf("%s case %ld: %s differs\n", t->name, t->cases, what);
    exit(1);
}

enum { GUARD = 16, MARK = 0x5a };

// n bytes that begin `skew` bytes off a word and end where the allocation ends, but for a guard.
typedef struct {
    uint8_t *block;
    int8_t *bytes;
    size_t n;
} buffer_t;

static buffer_t buffer(size_t n, int32_t skew) {
    buffer_t b = {.n = n};
    b.block = malloc((size_t)skew + n + GUARD);
    if (!b.block) {
        printf("out of memory\n");
        exit(1);
    }
    b.bytes = (int8_t *)b.block + skew;
    memset(b.bytes, MARK, n + GUARD);
    return b;
}

// The same without a guard: what is only read.
static buffer_t exact(size_t n, int32_t skew) {
    buffer_t b = {.n = n};
    b.block = malloc((size_t)skew + n);
    if (!b.block) {
        printf("out of memory\n");
        exit(1);
    }
    b.bytes = (int8_t *)b.block + skew;
    return b;
}

static void check_guard(const tally_t *t, const buffer_t *b) {
    for (size_t i = 0; i < GUARD; i++) {
        if ((uint8_t)b->bytes[b->n + i] != MARK) {
            fail(t, "what lies behind a buffer");
        }
    }
}

static int32_t *words_of(const buffer_t *b) {
    return (int32_t *)(void *)b->bytes;
}

static float *floats_of(const buffer_t *b) {
    return (float *)(void *)b->bytes;
}

static void fill(int8_t *bytes, size_t n) {
    const int32_t kind = in(0, 5);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (int8_t)(kind == 0 ? (one_in(2) ? -128 : 127) : kind == 1 ? -128 : in(-128, 127));
    }
}

static buffer_t elements(size_t n) {
    buffer_t b = exact(n, in(0, 3));
    fill(b.bytes, n);
    return b;
}

static void fill_floats(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = ldexpf((float)in(-8191, 8191), in(-16, -6));
        if (one_in(200)) {
            const float odd[] = {0.0f, -0.0f, INFINITY, NAN};
            x[i] = odd[in(0, one_in(20) ? 3 : 1)];
        }
    }
}

static buffer_t floats(size_t n) {
    buffer_t b = exact(n * 4, 0);
    fill_floats(floats_of(&b), n);
    return b;
}

// Outputs [pixels, channels] of 1 byte, `step` apart in `got` and without gaps in `whole`.
static void compare(tally_t *t, const int8_t *whole, const int8_t *got, int32_t pixels, int32_t channels, int32_t step) {
    int lively = 0;
    for (int32_t i = 0; i < pixels; i++) {
        if (memcmp(whole + i * channels, got + i * step, (size_t)channels) != 0) {
            fail(t, "an output");
        }
        for (int32_t c = 0; c < channels; c++) {
            lively |= whole[i * channels + c] != whole[0];
        }
    }
    t->cases++;
    t->bytes += pixels * channels;
    t->lively += lively;
}

// The same of floats; that a NaN is one is all that is asked of it.
static void compare_floats(tally_t *t, const float *whole, const float *got, int32_t pixels, int32_t channels,
                           int32_t step) {
    int lively = 0;
    for (int32_t i = 0; i < pixels; i++) {
        for (int32_t c = 0; c < channels; c++) {
            const float a = whole[i * channels + c], b = got[i * step + c];
            if (!(a != a && b != b) && memcmp(&a, &b, 4) != 0) {
                fail(t, "an output");
            }
            lively |= a != whole[0];
        }
    }
    t->cases++;
    t->bytes += 4L * pixels * channels;
    t->lively += lively;
}

#endif
