// Random cases for a variant's kernels: numbers, exact buffers, windows, scales. Included by one driver each.
//
// Sizes, windows, groups, scales, clamps and alignments of all sorts; inputs of any kind, extremes among them. Every
// buffer has its exact size, so that an address sanitizer sees the first byte too many; scratch and output also have
// a guard behind them for the boards, which have none.
#ifndef VARIANT_CASES_H
#define VARIANT_CASES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chance.h"
#include "kernels/variants.h"

#ifndef CASES
#define CASES 400
#endif
#ifndef SEED
#define SEED 1
#endif

enum { GUARD = 16, MARK = 0x5a };

// n bytes that begin `skew` bytes off a word and end where the allocation ends, but for the guard.
typedef struct {
    uint8_t *block;
    int8_t *bytes;
    size_t n;
    int guarded;
} buffer_t;

static buffer_t buffer(size_t n, int32_t skew, int guarded) {
    buffer_t b = {.n = n, .guarded = guarded};
    b.block = malloc((size_t)skew + n + (guarded ? GUARD : 0));
    if (!b.block) {
        printf("out of memory\n");
        exit(1);
    }
    b.bytes = (int8_t *)b.block + skew;
    if (guarded) {
        memset(b.bytes + n, MARK, GUARD);
    }
    return b;
}

// Elements from the first pixel's first to the last pixel's last; step 0: no gap.
static size_t spanned(int32_t pixels, int32_t channels, int32_t step) {
    return (size_t)((pixels - 1) * (step ? step : channels) + channels);
}

// An output, marked all over: what lies between its pixels must stay so.
static buffer_t output(int32_t pixels, int32_t channels, int32_t step) {
    buffer_t b = buffer(spanned(pixels, channels, step), in(0, 3), 1);
    memset(b.bytes, MARK, b.n);
    return b;
}

// Pixels of `channels` from one step to another.
static void move_pixels(int32_t pixels, int32_t channels, const int8_t *from, int32_t from_step, int8_t *to,
                        int32_t to_step) {
    for (int32_t i = 0; i < pixels; i++) {
        memcpy(to + i * to_step, from + i * from_step, (size_t)channels);
    }
}

static int whole(const buffer_t *b) {
    for (int i = 0; b->guarded && i < GUARD; i++) {
        if ((uint8_t)b->bytes[b->n + (size_t)i] != MARK) {
            return 0;
        }
    }
    return 1;
}

static buffer_t elements(size_t n) {
    buffer_t b = buffer(n, in(0, 3), 0);
    const int32_t kind = in(0, 5);
    for (size_t i = 0; i < n; i++) {
        b.bytes[i] = (int8_t)(kind == 0 ? (one_in(2) ? -128 : 127) : kind == 1 ? -128 : in(-128, 127));
    }
    return b;
}

static int32_t limit_or(int32_t value) {
    return one_in(8) ? (one_in(2) ? INT32_MIN : INT32_MAX) : value;
}

static buffer_t words(int32_t n) {
    buffer_t b = buffer((size_t)n * 4, 0, 0);
    const int32_t kind = in(0, 3);
    for (int32_t i = 0; i < n; i++) {
        const int32_t v = kind == 0 ? limit_or((int32_t)any()) : in(-40000, 40000);
        memcpy(b.bytes + 4 * i, &v, 4);
    }
    return b;
}

static fl_requant_t factor(int32_t low, int32_t high) {
    fl_requant_t r = {.multiplier = (int32_t)(0x40000000u + any() % 0x40000000u), .shift = in(low, high)};
    if (one_in(12)) {
        r.multiplier = one_in(3) ? 0 : one_in(2) ? 1 << 30 : INT32_MAX;
    }
    return r;
}

// Shifts that make outputs move, and now and then any that the format has.
static buffer_t factors(int32_t n) {
    buffer_t b = buffer((size_t)n * sizeof(fl_requant_t), 0, 0);
    const int wild = one_in(3);
    for (int32_t i = 0; i < n; i++) {
        const fl_requant_t r = wild && one_in(3) ? factor(-31, 30) : factor(-13, -6);
        memcpy(b.bytes + (size_t)i * sizeof r, &r, sizeof r);
    }
    return b;
}

static void clamp_of(int32_t *low, int32_t *high) {
    *low = -128;
    *high = 127;
    if (one_in(3)) {
        *low = in(-128, 127);
        *high = in(*low, 127);
    }
}

// The two outputs of a case, and what became of them all.
typedef struct {
    const char *name;
    long cases, bytes, lively;
} tally_t;

static void compare(tally_t *t, const buffer_t *plain, const buffer_t *variant, const buffer_t *scratch) {
    if (memcmp(plain->bytes, variant->bytes, plain->n) != 0 || !whole(variant) || (scratch && !whole(scratch))) {
        printf("%s case %ld differs\n", t->name, t->cases);
        exit(1);
    }
    t->cases++;
    t->bytes += (long)plain->n;
    for (size_t i = 1; i < plain->n; i++) {
        if (plain->bytes[i] != plain->bytes[0]) {
            t->lively++;
            break;
        }
    }
}

// One axis of a window: its output positions, at least one.
static int32_t positions(int32_t size, int32_t kernel, int32_t stride, int32_t dilation, int32_t before, int32_t after) {
    const int32_t room = size + before + after - ((kernel - 1) * dilation + 1);
    return room < 0 ? 0 : room / stride + 1;
}

// `far`: on a map of many rows or columns.
static fl_conv_params_t window(fl_map_dims_t *d, int pool, int far) {
    fl_conv_params_t p;
    memset(d, 0, sizeof *d);
    do {
        memset(&p, 0, sizeof p);
        d->in_h = far == 1 ? in(60, 90) : in(1, 9);
        d->in_w = far == 2 ? in(60, 150) : in(1, 9);
        p.kernel_h = (uint16_t)(one_in(3) ? 3 : in(1, 5));
        p.kernel_w = (uint16_t)(one_in(3) ? p.kernel_h : in(1, 5));
        p.stride_h = (uint16_t)in(1, 3);
        p.stride_w = (uint16_t)in(1, 3);
        p.dilation_h = (uint16_t)(pool || !one_in(4) ? 1 : in(1, 3));
        p.dilation_w = (uint16_t)(pool || !one_in(4) ? 1 : in(1, 3));
        p.pad_top = (int16_t)in(0, pool ? p.kernel_h - 1 : p.kernel_h + 1);
        p.pad_left = (int16_t)in(0, pool ? p.kernel_w - 1 : p.kernel_w + 1);
        if (one_in(4)) {  // a 1x1 that never leaves the map
            p.kernel_h = p.kernel_w = 1;
            p.pad_top = p.pad_left = 0;
        }
        const int32_t bottom = pool ? in(0, p.kernel_h - 1) : in(0, p.kernel_h + 1);
        const int32_t right = pool ? in(0, p.kernel_w - 1) : in(0, p.kernel_w + 1);
        d->out_h = positions(d->in_h, p.kernel_h, p.stride_h, p.dilation_h, p.pad_top, bottom);
        d->out_w = positions(d->in_w, p.kernel_w, p.stride_w, p.dilation_w, p.pad_left, right);
        if (pool && ((d->out_h - 1) * p.stride_h - p.pad_top >= d->in_h ||
                     (d->out_w - 1) * p.stride_w - p.pad_left >= d->in_w)) {
            d->out_h = 0;  // a pool's window must touch the map
        }
    } while (d->out_h < 1 || d->out_w < 1);
    p.depth_multiplier = 1;
    return p;
}

static int32_t channels(void) {
    return one_in(3) ? 4 * in(1, 6) : in(1, 21);
}

typedef struct {
    fl_quant_t q;
    buffer_t requant, bias, folded;
    const int32_t *b;
} scaling_t;

static scaling_t scaling(int32_t out_c) {
    scaling_t s = {.requant = factors(out_c), .bias = words(out_c), .folded = buffer((size_t)out_c * 4, 0, 0)};
    s.q.x_zero = one_in(6) ? (one_in(2) ? -128 : 127) : in(-128, 127);
    s.q.out_zero = in(-128, 127);
    clamp_of(&s.q.act_min, &s.q.act_max);
    s.q.requant = (const fl_requant_t *)(const void *)s.requant.bytes;
    s.q.requant_stride = !one_in(4);
    s.q.w_zero = one_in(10) ? in(-128, 127) : 0;
    s.q.flags = one_in(8) ? FL_OP_SINGLE_ROUNDING : 0;
    s.b = one_in(5) ? NULL : (const int32_t *)(const void *)s.bias.bytes;
    return s;
}

// Folded biases, which most images bring. Weight i of channel c: w[c * channel + i * tap].
static void fold(scaling_t *s, const int8_t *w, int32_t out_c, int32_t k, int32_t channel, int32_t tap) {
    if (one_in(4)) {
        return;  // a layer in training has none
    }
    for (int32_t c = 0; c < out_c; c++) {
        uint32_t v = s->b ? (uint32_t)s->b[c] : 0u;
        for (int32_t i = 0; i < k; i++) {
            v -= (uint32_t)(s->q.x_zero * w[c * channel + i * tap]);
        }
        memcpy(s->folded.bytes + 4 * c, &v, 4);
    }
    s->q.folded = (const int32_t *)(const void *)s->folded.bytes;
}

static void drop(scaling_t *s) {
    free(s->requant.block);
    free(s->bias.block);
    free(s->folded.block);
}

// A kernel's cases. A run may find that its case is none; then it leaves the tally as it is.
typedef struct {
    const char *name;
    void (*run)(tally_t *t);
} kernel_t;

// How many cases: from the command line, or the macros where there is none.
static long start(int argc, char **argv) {
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : SEED;
    printf("variant %d\n", (int)fl_kernels_variant());
    return argc > 1 ? atol(argv[1]) : CASES;
}

static void run_cases(const kernel_t *k, long cases) {
    tally_t t = {.name = k->name};
    while (t.cases < cases) {
        k->run(&t);
    }
    printf("%s %ld cases %ld bytes %ld lively\n", t.name, t.cases, t.bytes, t.lively);
}

#endif
