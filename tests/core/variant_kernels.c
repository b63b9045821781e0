// Random cases through a variant's kernels and through plain C: every byte must be the same.
//
//   variant_kernels [cases [seed]]     host; on a bare board the macros CASES and SEED
//
// Sizes, windows, groups, scales, clamps and alignments of all sorts; inputs of any kind, extremes among them. Every
// buffer has its exact size, so that an address sanitizer sees the first byte too many; scratch and output also have
// a guard behind them for the boards, which have none. Prints one line a kernel; "differs" ends the run.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/variants.h"

#ifndef CASES
#define CASES 400
#endif
#ifndef SEED
#define SEED 1
#endif

static uint64_t state;

static uint32_t any(void) {  // splitmix64
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

// low..high, both included
static int32_t in(int32_t low, int32_t high) {
    return low + (int32_t)(any() % (uint32_t)(high - low + 1));
}

static int one_in(int32_t n) {
    return in(1, n) == 1;
}

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

static void conv2d(tally_t *t) {
    fl_map_dims_t d;
    fl_conv_params_t p = window(&d, 0, 0);
    p.groups = (uint16_t)(one_in(4) ? in(2, 4) : in(0, 1));
    const int32_t groups = p.groups > 1 ? p.groups : 1;
    d.in_c = (one_in(3) ? in(1, 3) : channels()) * groups;
    d.out_c = in(1, 13) * groups;
    const int32_t k = p.kernel_h * p.kernel_w * (d.in_c / groups);
    scaling_t s = scaling(d.out_c);
    buffer_t x = elements((size_t)(d.in_h * d.in_w * d.in_c)), w = elements((size_t)(k * d.out_c));
    fold(&s, w.bytes, d.out_c, k, k, 1);
    const size_t n = (size_t)(d.out_h * d.out_w * d.out_c);
    buffer_t a = buffer(n, in(0, 3), 1), b = buffer(n, in(0, 3), 1);
    buffer_t scratch = buffer(fl_conv2d_scratch(fl_kernels_variant(), &p, &d), 0, 1);
    fl_conv2d_plain(&p, &s.q, &d, x.bytes, w.bytes, s.b, NULL, a.bytes);
    fl_conv2d(&p, &s.q, &d, x.bytes, w.bytes, s.b, scratch.n ? scratch.bytes : NULL, b.bytes);
    compare(t, &a, &b, &scratch);
    drop(&s);
    free(x.block), free(w.block), free(a.block), free(b.block), free(scratch.block);
}

static void depthwise(tally_t *t) {
    fl_map_dims_t d;
    fl_conv_params_t p = window(&d, 0, one_in(10) ? in(1, 2) : 0);
    p.depth_multiplier = (uint16_t)(one_in(3) ? in(2, 9) : 1);
    d.in_c = one_in(6) ? 1 : channels();
    d.out_c = d.in_c * p.depth_multiplier;
    scaling_t s = scaling(d.out_c);
    buffer_t x = elements((size_t)(d.in_h * d.in_w * d.in_c));
    buffer_t w = elements((size_t)(p.kernel_h * p.kernel_w * d.out_c));
    fold(&s, w.bytes, d.out_c, p.kernel_h * p.kernel_w, 1, d.out_c);
    const size_t n = (size_t)(d.out_h * d.out_w * d.out_c);
    buffer_t a = buffer(n, in(0, 3), 1), b = buffer(n, in(0, 3), 1);
    buffer_t scratch = buffer(fl_depthwise_conv2d_scratch(fl_kernels_variant(), &p, &d), 0, 1);
    fl_depthwise_conv2d_plain(&p, &s.q, &d, x.bytes, w.bytes, s.b, NULL, a.bytes);
    fl_depthwise_conv2d(&p, &s.q, &d, x.bytes, w.bytes, s.b, scratch.n ? scratch.bytes : NULL, b.bytes);
    compare(t, &a, &b, &scratch);
    drop(&s);
    free(x.block), free(w.block), free(a.block), free(b.block), free(scratch.block);
}

static void fully_connected(tally_t *t) {
    const int32_t batch = one_in(3) ? in(2, 4) : 1, out_c = in(1, 23);
    const int32_t in_c = one_in(3) ? 16 * in(1, 5) : in(1, 90);
    scaling_t s = scaling(out_c);
    buffer_t x = elements((size_t)(batch * in_c)), w = elements((size_t)(out_c * in_c));
    fold(&s, w.bytes, out_c, in_c, in_c, 1);
    const size_t n = (size_t)(batch * out_c);
    buffer_t a = buffer(n, in(0, 3), 1), b = buffer(n, in(0, 3), 1);
    buffer_t scratch = buffer(fl_fully_connected_scratch(fl_kernels_variant(), out_c, in_c), 0, 1);
    fl_fully_connected_plain(&s.q, batch, out_c, in_c, x.bytes, w.bytes, s.b, NULL, a.bytes);
    fl_fully_connected(&s.q, batch, out_c, in_c, x.bytes, w.bytes, s.b, scratch.n ? scratch.bytes : NULL, b.bytes);
    compare(t, &a, &b, &scratch);
    drop(&s);
    free(x.block), free(w.block), free(a.block), free(b.block), free(scratch.block);
}

// The accumulator is the bias: every scale at the edges of 32 bits, of the format's shifts and of rounding.
static void scale(tally_t *t) {
    const int32_t out_c = 4 * in(1, 8);
    scaling_t s = scaling(out_c);
    s.q.w_zero = 0;
    s.b = (const int32_t *)(const void *)s.bias.bytes;
    for (int32_t i = 0; i < out_c; i++) {
        const uint32_t edge = (one_in(2) ? 1u : UINT32_MAX) * (1u << in(0, 31)) + (uint32_t)in(-2, 2);
        const fl_requant_t r = factor(-31, 8);
        memcpy(s.bias.bytes + 4 * i, &edge, 4);
        memcpy(s.requant.bytes + (size_t)i * sizeof r, &r, sizeof r);
    }
    int8_t x = (int8_t)s.q.x_zero;
    buffer_t w = elements((size_t)out_c), a = buffer((size_t)out_c, 0, 1), b = buffer((size_t)out_c, 0, 1);
    fold(&s, w.bytes, out_c, 1, 1, 1);
    fl_fully_connected_plain(&s.q, 1, out_c, 1, &x, w.bytes, s.b, NULL, a.bytes);
    fl_fully_connected(&s.q, 1, out_c, 1, &x, w.bytes, s.b, NULL, b.bytes);
    compare(t, &a, &b, NULL);
    const fl_map_dims_t d = {.in_h = 1, .in_w = 1, .in_c = 1, .out_h = 1, .out_w = 1, .out_c = out_c};
    const fl_conv_params_t p = {.kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1, .dilation_h = 1,
                                .dilation_w = 1, .depth_multiplier = 1};
    buffer_t scratch = buffer(fl_conv2d_scratch(fl_kernels_variant(), &p, &d), 0, 1);
    fl_conv2d(&p, &s.q, &d, &x, w.bytes, s.b, scratch.n ? scratch.bytes : NULL, b.bytes);
    compare(t, &a, &b, &scratch);
    drop(&s);
    free(w.block), free(a.block), free(b.block), free(scratch.block);
}

static void pool(tally_t *t, int maximum) {
    fl_map_dims_t d;
    fl_conv_params_t p = window(&d, 1, 0);
    d.in_c = d.out_c = channels();
    if (one_in(4)) {  // of the whole map, which may be large
        static const int32_t edges[][2] = {{16, 16}, {1, 256}, {256, 1}, {1, 257}, {257, 1}, {17, 17}};
        const int32_t edge = in(0, 11);
        d.in_h = edge < 6 ? edges[edge][0] : in(1, 24);
        d.in_w = edge < 6 ? edges[edge][1] : in(1, 24);
        p = (fl_conv_params_t){.kernel_h = (uint16_t)d.in_h, .kernel_w = (uint16_t)d.in_w, .stride_h = 1, .stride_w = 1,
                               .dilation_h = 1, .dilation_w = 1, .depth_multiplier = 1};
        d.out_h = d.out_w = 1;
    }
    int32_t low, high;
    clamp_of(&low, &high);
    buffer_t x = elements((size_t)(d.in_h * d.in_w * d.in_c));
    const size_t n = (size_t)(d.out_h * d.out_w * d.out_c);
    buffer_t a = buffer(n, in(0, 3), 1), b = buffer(n, in(0, 3), 1);
    (maximum ? fl_max_pool_plain : fl_avg_pool_plain)(&p, low, high, &d, x.bytes, a.bytes);
    (maximum ? fl_max_pool : fl_avg_pool)(&p, low, high, &d, x.bytes, b.bytes);
    compare(t, &a, &b, NULL);
    free(x.block), free(a.block), free(b.block);
}

static void max_pool(tally_t *t) {
    pool(t, 1);
}

static void avg_pool(tally_t *t) {
    pool(t, 0);
}

static void add(tally_t *t) {
    static const fl_requant_t half = {1 << 30, 0};
    const int32_t n = in(1, 200);
    fl_add_params_t p = {.a = half, .b = half, .out = factor(-20, -14), .left_shift = 20};
    if (!one_in(6)) {  // one scale smaller, as a compiler makes it
        *(one_in(2) ? &p.a : &p.b) = factor(-6, -1);
    }
    if (one_in(6)) {
        p.a = factor(-31, 0);
        p.b = factor(-31, 0);
        p.out = factor(-31, 0);
    }
    fl_add_quant_t q = {in(-128, 127), in(-128, 127), in(-128, 127), 0, 0};
    clamp_of(&q.act_min, &q.act_max);
    buffer_t x = elements((size_t)n), y = elements((size_t)n);
    buffer_t a = buffer((size_t)n, in(0, 3), 1), b = buffer((size_t)n, in(0, 3), 1);
    fl_add_plain(&p, &q, n, x.bytes, y.bytes, a.bytes);
    fl_add(&p, &q, n, x.bytes, y.bytes, b.bytes);
    compare(t, &a, &b, NULL);
    free(x.block), free(y.block), free(a.block), free(b.block);
}

// What an image may ask for and no random case does: steps that are never taken and do not fit 32 bits, kernels far larger
// than the map, a 1x1 that looks into the padding. All pass fl_image_check.
enum { CONV, DEPTHWISE, AVERAGE, LARGEST };

typedef struct {
    int kind;
    fl_map_dims_t d;
    fl_conv_params_t p;
} edge_t;

#define WINDOW(kernel, s_h, s_w, d_h, d_w, top, left)                                                                \
    {.kernel_h = kernel, .kernel_w = kernel, .stride_h = s_h, .stride_w = s_w, .dilation_h = d_h, .dilation_w = d_w, \
     .pad_top = top, .pad_left = left, .depth_multiplier = 1}

static const edge_t edges[] = {
    {CONV, {2, 2, 301, 4, 4, 3}, WINDOW(1, 1, 1, 1, 1, 1, 1)},
    {CONV, {1, 32, 4096, 2, 32, 2}, WINDOW(1, 32767, 1, 1, 1, 32767, 0)},
    {CONV, {1, 2, 40000, 1, 2, 2}, WINDOW(1, 65535, 1, 65535, 65535, 0, 0)},
    {DEPTHWISE, {1, 1, 65536, 1, 1, 65536}, WINDOW(1, 65535, 65535, 1, 1, 0, 0)},
    {DEPTHWISE, {1, 2, 32768, 1, 2, 32768}, WINDOW(1, 1, 1, 32768, 1, 0, 0)},
    {DEPTHWISE, {1, 3, 40000, 1, 2, 40000}, WINDOW(2, 1, 1, 32767, 1, 32767, 0)},
    {AVERAGE, {20, 20, 4, 1, 1, 4}, WINDOW(65535, 1, 1, 1, 1, 32767, 32767)},
    {LARGEST, {20, 20, 4, 1, 1, 4}, WINDOW(65535, 1, 1, 1, 1, 32767, 32767)},
};

static void edge(tally_t *t) {
    const edge_t *e = &edges[(size_t)t->cases % (sizeof edges / sizeof edges[0])];
    const fl_map_dims_t *d = &e->d;
    const fl_conv_params_t p = e->p;
    const int weighted = e->kind == CONV || e->kind == DEPTHWISE;
    const size_t taps = weighted ? (size_t)p.kernel_h * p.kernel_w : 0;
    scaling_t s = scaling(d->out_c);
    s.q.w_zero = 0;
    buffer_t x = elements((size_t)(d->in_h * d->in_w * d->in_c));
    buffer_t w = elements(taps * (size_t)d->out_c * (size_t)(e->kind == CONV ? d->in_c : 1));
    for (size_t i = 0; i < x.n && !weighted; i++) {
        x.bytes[i] = (int8_t)in(90, 127);  // 400 of them exceed 16 bits
    }
    const size_t n = (size_t)(d->out_h * d->out_w * d->out_c);
    buffer_t a = buffer(n, in(0, 3), 1), b = buffer(n, in(0, 3), 1);
    const fl_variant_t variant = fl_kernels_variant();
    buffer_t scratch = buffer(e->kind == CONV        ? fl_conv2d_scratch(variant, &p, d)
                              : e->kind == DEPTHWISE ? fl_depthwise_conv2d_scratch(variant, &p, d)
                                                     : 0,
                              0, 1);
    if (weighted) {
        (e->kind == CONV ? fl_conv2d_plain : fl_depthwise_conv2d_plain)(&p, &s.q, d, x.bytes, w.bytes, s.b, NULL, a.bytes);
        (e->kind == CONV ? fl_conv2d : fl_depthwise_conv2d)(&p, &s.q, d, x.bytes, w.bytes, s.b, scratch.bytes, b.bytes);
    } else {
        (e->kind == LARGEST ? fl_max_pool_plain : fl_avg_pool_plain)(&p, -128, 127, d, x.bytes, a.bytes);
        (e->kind == LARGEST ? fl_max_pool : fl_avg_pool)(&p, -128, 127, d, x.bytes, b.bytes);
    }
    compare(t, &a, &b, &scratch);
    const fl_conv_params_t one = WINDOW(1, 1, 1, 1, 1, 0, 0);
    const fl_map_dims_t vast = {.in_h = 1, .in_w = 1, .in_c = 1 << 29, .out_h = 1, .out_w = 1, .out_c = 2};
    if (fl_conv2d_scratch(variant, &one, &vast) > 1u << 24) {
        printf("the scratch of a vast column differs from none\n");
        exit(1);
    }
    drop(&s);
    free(x.block), free(w.block), free(a.block), free(b.block), free(scratch.block);
}

int main(int argc, char **argv) {
    const long cases = argc > 1 ? atol(argv[1]) : CASES;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : SEED;
    static const struct {
        const char *name;
        void (*run)(tally_t *t);
    } kernels[] = {{"conv2d", conv2d},     {"depthwise_conv2d", depthwise}, {"fully_connected", fully_connected},
                   {"scale", scale},       {"max_pool", max_pool},          {"avg_pool", avg_pool},
                   {"add", add},           {"edge", edge}};
    printf("variant %d\n", (int)fl_kernels_variant());
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        tally_t t = {.name = kernels[i].name};
        const long wanted = kernels[i].run == scale  ? 10 * cases  // small, and all edges
                            : kernels[i].run == edge ? 64          // large
                                                     : cases;
        while (t.cases < wanted) {
            kernels[i].run(&t);
        }
        printf("%s %ld cases %ld bytes %ld lively\n", t.name, t.cases, t.bytes, t.lively);
    }
    printf("end\n");
    return 0;
}
