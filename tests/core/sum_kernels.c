// Random operators whole and in random parts (fl_kernels_sum.h), and f32 kernels over slices: every byte must be the same.
//
//   sum_kernels [cases [seed]]     host; on a bare board the macros CASES and SEED
//
// int8 parts come in any order and start from any accumulators, so that sums wrap; they are also compared with sums made
// here, naively. f32 parts come in the whole kernel's order. Inputs lie with and without gaps between their pixels. Every
// buffer has its exact size, so that an address sanitizer sees the first byte too many, and those written have a guard
// behind them for the boards, which have none. Prints one line a kernel; "differs" ends the run.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fieldloop/fl_kernels_f32.h"
#include "fieldloop/fl_kernels_sum.h"
#include "kernels/variants.h"
#include "sum_buffers.h"

#ifndef CASES
#define CASES 400
#endif
#ifndef SEED
#define SEED 1
#endif

// ---- operators

static int32_t positions(int32_t size, int32_t kernel, int32_t stride, int32_t dilation, int32_t before, int32_t after) {
    const int32_t room = size + before + after - ((kernel - 1) * dilation + 1);
    return room < 0 ? 0 : room / stride + 1;
}

static fl_conv_params_t window(fl_map_dims_t *d, int pool) {
    fl_conv_params_t p;
    memset(d, 0, sizeof *d);
    do {
        memset(&p, 0, sizeof p);
        d->in_h = in(1, 8);
        d->in_w = one_in(6) ? in(10, 40) : in(1, 9);
        p.kernel_h = (uint16_t)in(1, 4);
        p.kernel_w = (uint16_t)in(1, 4);
        p.stride_h = (uint16_t)in(1, 3);
        p.stride_w = (uint16_t)in(1, 3);
        p.dilation_h = (uint16_t)(pool || !one_in(4) ? 1 : in(1, 3));
        p.dilation_w = (uint16_t)(pool || !one_in(4) ? 1 : in(1, 3));
        p.pad_top = (int16_t)in(0, pool ? p.kernel_h - 1 : p.kernel_h + 1);
        p.pad_left = (int16_t)in(0, pool ? p.kernel_w - 1 : p.kernel_w + 1);
        if (one_in(2)) {  // the common case
            p.kernel_h = p.kernel_w = 1;
            p.pad_top = p.pad_left = 0;
            if (one_in(2)) {
                p.stride_h = p.stride_w = 1;
            }
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
    return one_in(3) ? 4 * in(1, 10) : one_in(8) ? in(60, 150) : in(1, 40);
}

// Cuts 0..n into up to 5 ranges: from[i]..from[i + 1]. Returns how many.
static int32_t cut(int32_t n, int32_t from[6]) {
    const int32_t parts = one_in(6) ? 1 : in(1, n < 5 ? n : 5), even = one_in(2);
    from[0] = 0;
    for (int32_t i = 1; i <= parts; i++) {
        from[i] = i == parts ? n : even ? n * i / parts : in(from[i - 1] + 1, n - (parts - i));
    }
    return parts;
}

static void shuffle(int32_t *order, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const int32_t j = in(0, i);
        order[i] = order[j];
        order[j] = i;
    }
}

// Channels [from, from + n) of pixels [first, first + pixels) of a map of `all` channels, in a buffer of their own, or
// where they are.
typedef struct {
    buffer_t own;
    int8_t *bytes;
    int32_t step;
} piece_t;

static piece_t piece(const int8_t *map, int32_t all, int32_t first, int32_t pixels, int32_t from, int32_t n,
                     int32_t element) {
    piece_t s = {.step = all};
    if (one_in(3)) {
        s.bytes = (int8_t *)map + (first * all + from) * element;
        return s;
    }
    s.step = one_in(3) ? n + in(0, 9) : n;
    s.own = exact((size_t)(((pixels - 1) * s.step + n) * element), element == 1 ? in(0, 3) : 0);
    s.bytes = s.own.bytes;
    for (int32_t i = 0; i < pixels; i++) {
        memcpy(s.bytes + i * s.step * element, map + ((first + i) * all + from) * element, (size_t)(n * element));
    }
    return s;
}

static int32_t limit_or(int32_t value) {
    return one_in(8) ? (one_in(2) ? INT32_MIN : INT32_MAX) : value;
}

static fl_requant_t factor(int32_t low, int32_t high) {
    fl_requant_t r = {.multiplier = (int32_t)(0x40000000u + any() % 0x40000000u), .shift = in(low, high)};
    if (one_in(12)) {
        r.multiplier = one_in(3) ? 0 : one_in(2) ? 1 << 30 : INT32_MAX;
    }
    return r;
}

typedef struct {
    fl_quant_t q;
    buffer_t requant, bias;
    const int32_t *b;
} scaling_t;

static void clamp_of(int32_t *low, int32_t *high) {
    *low = -128;
    *high = 127;
    if (one_in(3)) {
        *low = in(-128, 127);
        *high = in(*low, 127);
    }
}

static scaling_t scaling(int32_t out_c) {
    scaling_t s = {.requant = exact((size_t)out_c * sizeof(fl_requant_t), 0), .bias = exact((size_t)out_c * 4, 0)};
    const int wild = one_in(3), far = one_in(4);
    for (int32_t i = 0; i < out_c; i++) {
        const fl_requant_t r = wild && one_in(3) ? factor(-31, 30) : factor(-13, -6);
        memcpy(s.requant.bytes + (size_t)i * sizeof r, &r, sizeof r);
        const int32_t v = far ? limit_or((int32_t)any()) : in(-40000, 40000);
        memcpy(s.bias.bytes + 4 * i, &v, 4);
    }
    s.q.x_zero = one_in(6) ? (one_in(2) ? -128 : 127) : one_in(4) ? 0 : in(-128, 127);
    s.q.out_zero = in(-128, 127);
    clamp_of(&s.q.act_min, &s.q.act_max);
    s.q.requant = (const fl_requant_t *)(const void *)s.requant.bytes;
    s.q.requant_stride = !one_in(4);
    s.q.w_zero = one_in(8) ? in(-128, 127) : 0;
    s.q.flags = one_in(8) ? FL_OP_SINGLE_ROUNDING : 0;
    s.b = one_in(5) ? NULL : words_of(&s.bias);
    return s;
}

// Sums of the whole operator, tap by tap as its definition has them, are in `acc`, on top of `start` of each channel.
static void check_sums(const tally_t *t, const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d,
                       const int8_t *x, const int8_t *w, const int32_t *start, const int32_t *acc) {
    const int32_t taps = p->kernel_h * p->kernel_w;
    for (int32_t i = 0; i < d->out_h * d->out_w * d->out_c; i++) {
        const int32_t o = i % d->out_c, ox = i / d->out_c % d->out_w, oy = i / d->out_c / d->out_w;
        uint32_t sum = (uint32_t)start[o];
        for (int32_t tap = 0; tap < taps; tap++) {
            const int32_t y = oy * p->stride_h - p->pad_top + tap / p->kernel_w * p->dilation_h;
            const int32_t column = ox * p->stride_w - p->pad_left + tap % p->kernel_w * p->dilation_w;
            for (int32_t c = 0; c < d->in_c && y >= 0 && y < d->in_h && column >= 0 && column < d->in_w; c++) {
                sum += (uint32_t)((x[(y * d->in_w + column) * d->in_c + c] - q->x_zero) *
                                  (w[(o * taps + tap) * d->in_c + c] - q->w_zero));
            }
        }
        if ((int32_t)sum != acc[i]) {
            fail(t, "a sum");
        }
    }
}

// Accumulators before the first part: mostly 0, else anything, taken off again by the biases `b`.
typedef struct {
    buffer_t start, bias;
    const int32_t *b;
} begun_t;

static begun_t begin(const scaling_t *s, int32_t *acc, int32_t pixels, int32_t out_c) {
    begun_t v = {.start = exact((size_t)out_c * 4, 0), .bias = exact((size_t)out_c * 4, 0)};
    const int offset = one_in(3);
    for (int32_t c = 0; c < out_c; c++) {
        const uint32_t start = !offset ? 0u : one_in(2) ? 0x7fffff00u + any() % 512 : any();
        words_of(&v.start)[c] = (int32_t)start;
        words_of(&v.bias)[c] = (int32_t)((s->b ? (uint32_t)s->b[c] : 0u) - start);
        for (int32_t i = 0; i < pixels; i++) {
            acc[i * out_c + c] = (int32_t)start;
        }
    }
    v.b = offset ? words_of(&v.bias) : s->b;
    return v;
}

// Sums are as they should be, and finish to `whole`, in place or elsewhere.
static void finish(tally_t *t, const scaling_t *s, int32_t pixels, int32_t out_c, const int32_t *b, buffer_t *acc,
                   const int8_t *whole) {
    check_guard(t, acc);
    const int32_t in_place = one_in(2), step = out_c + (one_in(3) ? in(0, in_place ? 3 * out_c : 9) : 0);
    const size_t n = (size_t)((pixels - 1) * step + out_c);
    buffer_t other = buffer(n, in(0, 3));
    int8_t *out = in_place ? acc->bytes : other.bytes;
    fl_finish_sums(&s->q, pixels, out_c, b, words_of(acc), out, step);
    check_guard(t, acc);
    check_guard(t, &other);
    for (size_t i = 0; !in_place && i < n; i++) {
        if (i % (size_t)step >= (size_t)out_c && (uint8_t)out[i] != MARK) {
            fail(t, "what lies between two pixels");
        }
    }
    compare(t, whole, out, pixels, out_c, step);
    free(other.block);
}

static void conv2d(tally_t *t) {
    fl_map_dims_t d;
    const fl_conv_params_t p = window(&d, 0);
    const int32_t all = channels(), taps = p.kernel_h * p.kernel_w;
    d.in_c = all;
    d.out_c = one_in(3) ? 4 * in(1, 5) : in(1, 20);
    const int32_t pixels = d.out_h * d.out_w;
    scaling_t s = scaling(d.out_c);
    buffer_t x = elements((size_t)(d.in_h * d.in_w * all)), w = elements((size_t)(taps * all * d.out_c));
    buffer_t whole = buffer((size_t)(pixels * d.out_c), 0), acc = buffer((size_t)(pixels * d.out_c) * 4, 0);
    fl_conv2d_plain(&p, &s.q, &d, x.bytes, w.bytes, s.b, NULL, whole.bytes);
    begun_t begun = begin(&s, words_of(&acc), pixels, d.out_c);
    const fl_map_dims_t uncut = d;
    int32_t from[6], order[5];
    const int32_t parts = cut(all, from);
    shuffle(order, parts);
    const fl_part_t part = {all, taps * all};
    for (int32_t i = 0; i < parts; i++) {
        const int32_t first = from[order[i]];
        d.in_c = from[order[i] + 1] - first;
        piece_t v = piece(x.bytes, all, 0, d.in_h * d.in_w, first, d.in_c, 1);
        d.x_step = v.step == d.in_c && one_in(2) ? 0 : v.step;
        d.y_step = one_in(2) ? 0 : in(1, 50);  // of no effect
        // the weights of the part alone, of which the last row ends with its last channel
        buffer_t own = exact((size_t)((d.out_c * taps - 1) * all + d.in_c), in(0, 3));
        memcpy(own.bytes, w.bytes + first, own.n);
        fl_conv2d_sum(&p, s.q.x_zero, s.q.w_zero, &d, &part, v.bytes, own.bytes, words_of(&acc));
        free(v.own.block), free(own.block);
    }
    check_sums(t, &p, &s.q, &uncut, x.bytes, w.bytes, words_of(&begun.start), words_of(&acc));
    finish(t, &s, pixels, d.out_c, begun.b, &acc, whole.bytes);
    free(x.block), free(w.block), free(whole.block), free(acc.block), free(begun.start.block), free(begun.bias.block);
    free(s.requant.block), free(s.bias.block);
}

// One sample's input seen as a map: boxes of any rows and channels.
static void fully_connected(tally_t *t) {
    const int32_t map_h = one_in(3) ? 1 : in(1, 6), map_w = one_in(3) ? 1 : in(1, 6), all = channels();
    const int32_t k = map_h * map_w * all, out_c = in(1, 23);
    scaling_t s = scaling(out_c);
    buffer_t x = elements((size_t)k), w = elements((size_t)(out_c * k));
    buffer_t whole = buffer((size_t)out_c, 0), acc = buffer((size_t)out_c * 4, 0);
    fl_fully_connected_plain(&s.q, 1, out_c, k, x.bytes, w.bytes, s.b, NULL, whole.bytes);
    begun_t begun = begin(&s, words_of(&acc), 1, out_c);
    int32_t rows[6], from[6], order[25];
    const int32_t down = cut(map_h, rows), across = one_in(3) ? (from[0] = 0, from[1] = all, 1) : cut(all, from);
    shuffle(order, down * across);
    const fl_part_t part = {all, k};
    for (int32_t i = 0; i < down * across; i++) {
        const int32_t row = rows[order[i] / across], first = from[order[i] % across];
        fl_map_dims_t d = {.in_h = rows[order[i] / across + 1] - row, .in_w = map_w, .out_h = 1, .out_w = 1, .out_c = out_c};
        d.in_c = from[order[i] % across + 1] - first;
        const fl_conv_params_t p = {.kernel_h = (uint16_t)d.in_h, .kernel_w = (uint16_t)map_w, .stride_h = 1, .stride_w = 1,
                                    .dilation_h = 1, .dilation_w = 1, .depth_multiplier = 1};
        piece_t v = piece(x.bytes, all, row * map_w, d.in_h * map_w, first, d.in_c, 1);
        d.x_step = v.step;
        const int32_t at = row * map_w * all + first;
        buffer_t own = exact((size_t)((out_c - 1) * k + (d.in_h * map_w - 1) * all + d.in_c), in(0, 3));
        memcpy(own.bytes, w.bytes + at, own.n);
        fl_conv2d_sum(&p, s.q.x_zero, s.q.w_zero, &d, &part, v.bytes, own.bytes, words_of(&acc));
        free(v.own.block), free(own.block);
    }
    const fl_map_dims_t vector = {.in_h = 1, .in_w = 1, .in_c = k, .out_h = 1, .out_w = 1, .out_c = out_c};
    const fl_conv_params_t point = {.kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1};
    check_sums(t, &point, &s.q, &vector, x.bytes, w.bytes, words_of(&begun.start), words_of(&acc));
    finish(t, &s, 1, out_c, begun.b, &acc, whole.bytes);
    free(x.block), free(w.block), free(whole.block), free(acc.block), free(begun.start.block), free(begun.bias.block);
    free(s.requant.block), free(s.bias.block);
}

// Accumulators, scales and roundings at the edges of 32 bits and of the format, through a fully connected layer of bias only.
static void scale(tally_t *t) {
    const int32_t out_c = in(1, 33), pixels = in(1, 3);
    scaling_t s = scaling(out_c);
    s.q.w_zero = 0;
    buffer_t acc = buffer((size_t)(pixels * out_c) * 4, 0), whole = buffer((size_t)(pixels * out_c), 0);
    buffer_t w = exact((size_t)out_c, 0), sums = exact((size_t)out_c * 4, 0);
    memset(w.bytes, 0, w.n);
    for (int32_t i = 0; i < out_c; i++) {
        const fl_requant_t r = factor(-31, 30);
        memcpy(s.requant.bytes + (size_t)i * sizeof r, &r, sizeof r);
    }
    for (int32_t i = 0; i < pixels; i++) {
        for (int32_t c = 0; c < out_c; c++) {
            const uint32_t edge = (one_in(2) ? 1u : UINT32_MAX) * (1u << in(0, 31)) + (uint32_t)in(-2, 2);
            words_of(&sums)[c] = (int32_t)edge;
            words_of(&acc)[i * out_c + c] = (int32_t)(edge - (s.b ? (uint32_t)s.b[c] : 0u));
        }
        const int8_t x = 0;
        fl_fully_connected_plain(&s.q, 1, out_c, 1, &x, w.bytes, words_of(&sums), NULL, whole.bytes + i * out_c);
    }
    finish(t, &s, pixels, out_c, s.b, &acc, whole.bytes);
    free(acc.block), free(whole.block), free(w.block), free(sums.block);
    free(s.requant.block), free(s.bias.block);
}

// An average pool over the whole map, or a mean, of some channels in parts of some rows.
static void pool(tally_t *t) {
    const int32_t h = in(1, 12), width = in(1, 12), all = channels();
    int32_t cuts[6], rows[6], order[5];
    const int32_t slices = cut(all, cuts), slice = in(0, slices - 1), first = cuts[slice], n = cuts[slice + 1] - first;
    const int32_t parts = cut(h, rows);
    shuffle(order, parts);
    buffer_t x = elements((size_t)(h * width * all)), whole = buffer((size_t)all, 0), acc = buffer((size_t)n * 4, 0);
    memset(acc.bytes, 0, acc.n);
    for (int32_t i = 0; i < parts; i++) {
        const int32_t row = rows[order[i]], pixels = (rows[order[i] + 1] - row) * width;
        piece_t v = piece(x.bytes, all, row * width, pixels, first, n, 1);
        fl_pool_sum(pixels, n, v.bytes, v.step, words_of(&acc));
        free(v.own.block);
    }
    check_guard(t, &acc);
    int32_t low, high;
    clamp_of(&low, &high);
    buffer_t out = buffer((size_t)n, in(0, 3));
    int8_t *to = one_in(2) ? acc.bytes : out.bytes;
    if (one_in(2)) {
        const fl_map_dims_t d = {.in_h = h, .in_w = width, .in_c = all, .out_h = 1, .out_w = 1, .out_c = all};
        const fl_conv_params_t p = {.kernel_h = (uint16_t)h, .kernel_w = (uint16_t)width, .stride_h = 1, .stride_w = 1,
                                    .dilation_h = 1, .dilation_w = 1, .depth_multiplier = 1};
        fl_avg_pool_plain(&p, low, high, &d, x.bytes, whole.bytes);
        fl_finish_avg_pool(h * width, low, high, n, words_of(&acc), to);
    } else {
        const int32_t shape[4] = {1, h, width, all};
        const fl_mean_params_t p = {.axes = 1 << 1 | 1 << 2, .out = factor(-12, -2)};
        const fl_mean_quant_t q = {in(-128, 127), in(-128, 127), low, high};
        fl_mean(&p, &q, shape, x.bytes, whole.bytes);
        fl_finish_mean(&p, &q, h * width, n, words_of(&acc), to);
    }
    check_guard(t, &acc);
    check_guard(t, &out);
    compare(t, whole.bytes + first, to, 1, n, n);
    free(x.block), free(whole.block), free(acc.block), free(out.block);
}

// What no sum of a whole pool is, but what a hostile plan may bring about: nothing but that it stays within C and int8.
static void hostile(tally_t *t) {
    const int32_t n = in(1, 9);
    buffer_t acc = buffer((size_t)n * 4, 0), out = buffer((size_t)n, 0);
    for (int32_t i = 0; i < n; i++) {
        words_of(&acc)[i] = limit_or((int32_t)any());
    }
    fl_finish_avg_pool(limit_or(1) > 1 ? INT32_MAX : in(1, 1 << 20), -100, 100, n, words_of(&acc), out.bytes);
    const fl_mean_params_t p = {.axes = 1, .out = factor(-31, 30)};
    const fl_mean_quant_t q = {in(-128, 127), in(-128, 127), -100, 100};
    for (int32_t i = 0; i < n; i++) {
        if (out.bytes[i] < -100 || out.bytes[i] > 100) {
            fail(t, "a clamped mean");
        }
    }
    fl_finish_mean(&p, &q, in(1, INT32_MAX), n, words_of(&acc), out.bytes);
    for (int32_t i = 0; i < n; i++) {
        if (out.bytes[i] < -100 || out.bytes[i] > 100) {
            fail(t, "a clamped mean");
        }
    }
    t->lively++;
    t->cases++;
    t->bytes += 2 * n;
    free(acc.block), free(out.block);
}

// ---- f32

static void limits_of(float *low, float *high) {
    *low = one_in(3) ? (float)in(-8, 0) : -INFINITY;
    *high = one_in(3) ? (float)in(1, 6) : INFINITY;
}

static void finish_floats(tally_t *t, float low, float high, int32_t pixels, int32_t out_c, const float *b, buffer_t *acc,
                          const float *whole) {
    check_guard(t, acc);
    const int32_t in_place = one_in(2), step = out_c + (in_place ? 0 : in(0, 3));
    buffer_t other = buffer((size_t)((pixels - 1) * step + out_c) * 4, 0);
    float *out = in_place ? floats_of(acc) : floats_of(&other);
    fl_finish_sums_f32(low, high, pixels, out_c, b, floats_of(acc), out, step);
    check_guard(t, acc);
    check_guard(t, &other);
    compare_floats(t, whole, out, pixels, out_c, step);
    free(other.block);
}

// Channel by channel of a 1x1, or all at once of any kernel: the kernel's order.
static void conv2d_f32(tally_t *t) {
    fl_map_dims_t d;
    const fl_conv_params_t p = window(&d, 0);
    const int32_t all = in(1, 24), taps = p.kernel_h * p.kernel_w;
    d.in_c = all;
    d.out_c = in(1, 13);
    const int32_t pixels = d.out_h * d.out_w;
    float low, high;
    limits_of(&low, &high);
    buffer_t x = floats((size_t)(d.in_h * d.in_w * all)), w = floats((size_t)(taps * all * d.out_c));
    buffer_t bias = floats((size_t)d.out_c);
    const float *b = one_in(4) ? NULL : floats_of(&bias);
    buffer_t whole = buffer((size_t)(pixels * d.out_c) * 4, 0), acc = buffer((size_t)(pixels * d.out_c) * 4, 0);
    fl_conv2d_f32(&p, low, high, &d, floats_of(&x), floats_of(&w), b, floats_of(&whole));
    memset(acc.bytes, 0, acc.n);
    int32_t from[6] = {0, all};
    const int32_t parts = taps == 1 ? cut(all, from) : 1;
    const fl_part_t part = {all, taps * all};
    for (int32_t i = 0; i < parts; i++) {
        d.in_c = from[i + 1] - from[i];
        piece_t v = piece(x.bytes, all, 0, d.in_h * d.in_w, from[i], d.in_c, 4);
        d.x_step = v.step;
        fl_conv2d_sum_f32(&p, &d, &part, floats_of(&(buffer_t){.bytes = v.bytes}), floats_of(&w) + from[i], floats_of(&acc));
        free(v.own.block);
    }
    finish_floats(t, low, high, pixels, d.out_c, b, &acc, floats_of(&whole));
    free(x.block), free(w.block), free(bias.block), free(whole.block), free(acc.block);
}

// Rows of a flattened map, or channels of a vector.
static void fully_connected_f32(tally_t *t) {
    const int flat = one_in(2);
    const int32_t map_h = flat ? in(1, 5) : 1, map_w = flat ? in(1, 5) : 1, all = in(1, 30);
    const int32_t k = map_h * map_w * all, out_c = in(1, 13);
    float low, high;
    limits_of(&low, &high);
    buffer_t x = floats((size_t)k), w = floats((size_t)(out_c * k)), bias = floats((size_t)out_c);
    const float *b = one_in(4) ? NULL : floats_of(&bias);
    buffer_t whole = buffer((size_t)out_c * 4, 0), acc = buffer((size_t)out_c * 4, 0);
    fl_fully_connected_f32(low, high, 1, out_c, k, floats_of(&x), floats_of(&w), b, floats_of(&whole));
    memset(acc.bytes, 0, acc.n);
    int32_t from[6];
    const int32_t parts = cut(flat ? map_h : all, from);
    const fl_part_t part = {all, k};
    for (int32_t i = 0; i < parts; i++) {
        const int32_t n = from[i + 1] - from[i];
        fl_map_dims_t d = {.in_h = flat ? n : 1, .in_w = map_w, .in_c = flat ? all : n, .out_h = 1, .out_w = 1, .out_c = out_c};
        const fl_conv_params_t p = {.kernel_h = (uint16_t)d.in_h, .kernel_w = (uint16_t)map_w, .stride_h = 1, .stride_w = 1,
                                    .dilation_h = 1, .dilation_w = 1, .depth_multiplier = 1};
        const int32_t first = flat ? from[i] * map_w : 0, channel = flat ? 0 : from[i];
        piece_t v = piece(x.bytes, all, first, d.in_h * map_w, channel, d.in_c, 4);
        d.x_step = v.step;
        fl_conv2d_sum_f32(&p, &d, &part, floats_of(&(buffer_t){.bytes = v.bytes}), floats_of(&w) + first * all + channel,
                          floats_of(&acc));
        free(v.own.block);
    }
    finish_floats(t, low, high, 1, out_c, b, &acc, floats_of(&whole));
    free(x.block), free(w.block), free(bias.block), free(whole.block), free(acc.block);
}

static void pool_f32(tally_t *t) {
    const int32_t h = in(1, 9), width = in(1, 9), all = in(1, 20);
    int32_t cuts[6], rows[6];
    const int32_t slices = cut(all, cuts), slice = in(0, slices - 1), first = cuts[slice], n = cuts[slice + 1] - first;
    const int32_t parts = cut(h, rows);
    float low, high;
    limits_of(&low, &high);
    buffer_t x = floats((size_t)(h * width * all)), whole = buffer((size_t)all * 4, 0), acc = buffer((size_t)n * 4, 0);
    memset(acc.bytes, 0, acc.n);
    for (int32_t i = 0; i < parts; i++) {
        const int32_t pixels = (rows[i + 1] - rows[i]) * width;
        piece_t v = piece(x.bytes, all, rows[i] * width, pixels, first, n, 4);
        fl_pool_sum_f32(pixels, n, floats_of(&(buffer_t){.bytes = v.bytes}), v.step, floats_of(&acc));
        free(v.own.block);
    }
    if (one_in(2)) {
        const fl_map_dims_t d = {.in_h = h, .in_w = width, .in_c = all, .out_h = 1, .out_w = 1, .out_c = all};
        const fl_conv_params_t p = {.kernel_h = (uint16_t)h, .kernel_w = (uint16_t)width, .stride_h = 1, .stride_w = 1,
                                    .dilation_h = 1, .dilation_w = 1, .depth_multiplier = 1};
        fl_avg_pool_f32(&p, low, high, &d, floats_of(&x), floats_of(&whole));
    } else {
        const int32_t shape[4] = {1, h, width, all};
        fl_mean_f32(1 << 1 | 1 << 2, low, high, shape, floats_of(&x), floats_of(&whole));
    }
    buffer_t out = buffer((size_t)n * 4, 0);
    float *to = one_in(2) ? floats_of(&acc) : floats_of(&out);
    fl_finish_mean_f32(h * width, low, high, n, floats_of(&acc), to);
    check_guard(t, &acc);
    check_guard(t, &out);
    compare_floats(t, floats_of(&whole) + first, to, 1, n, n);
    free(x.block), free(whole.block), free(acc.block), free(out.block);
}

// f32 kernels from pieces with gaps to pieces with gaps: the channels of a slice are those of the whole.
typedef enum { CONV, DEPTHWISE, LARGEST, AVERAGE } kind_t;

static void slice_f32(tally_t *t) {
    const kind_t kind = (kind_t)in(CONV, AVERAGE);
    fl_map_dims_t d;
    fl_conv_params_t p = window(&d, kind >= LARGEST);
    p.depth_multiplier = (uint16_t)(kind == DEPTHWISE && one_in(3) ? in(2, 4) : 1);
    p.groups = (uint16_t)(kind == CONV && one_in(4) ? in(2, 3) : 1);
    const int32_t all = in(1, 12) * p.groups, m = p.depth_multiplier, taps = p.kernel_h * p.kernel_w;
    int32_t cuts[6];
    // of a convolution the outputs are cut, of the others both sides
    d.in_c = all;
    d.out_c = kind == CONV ? in(1, 9) * p.groups : all * m;
    const int32_t out_all = d.out_c, pixels = d.out_h * d.out_w, inputs = d.in_h * d.in_w;
    const int32_t slices = cut(kind == CONV ? out_all : all, cuts), slice = p.groups > 1 ? -1 : in(0, slices - 1);
    const int32_t first = slice < 0 ? 0 : cuts[slice], n = slice < 0 ? out_all : cuts[slice + 1] - first;
    float low, high;
    limits_of(&low, &high);
    const int32_t w_row = kind == CONV ? taps * all / p.groups : 0;
    buffer_t x = floats((size_t)(inputs * all)), w = floats((size_t)(kind == CONV ? out_all * w_row : taps * out_all));
    buffer_t bias = floats((size_t)out_all), whole = buffer((size_t)(pixels * out_all) * 4, 0);
    for (int32_t part = 0; part < 2; part++) {
        const float *b = floats_of(&bias), *weights = floats_of(&w);
        piece_t v = {.bytes = x.bytes, .step = 0};
        buffer_t out = whole;
        if (part) {
            v = kind == CONV ? piece(x.bytes, all, 0, inputs, 0, all, 4) : piece(x.bytes, all, 0, inputs, first, n, 4);
            d.in_c = kind == CONV ? all : n;
            d.out_c = kind == CONV ? n : n * m;
            d.x_step = v.step;
            d.y_step = d.out_c + in(0, 5);
            d.w_step = kind == DEPTHWISE ? out_all : 0;
            b += first * m;
            weights += kind == CONV ? first * w_row : first * m;
            out = buffer((size_t)((pixels - 1) * d.y_step + d.out_c) * 4, 0);
        }
        const float *from = floats_of(&(buffer_t){.bytes = v.bytes});
        if (kind == CONV) {
            fl_conv2d_f32(&p, low, high, &d, from, weights, b, floats_of(&out));
        } else if (kind == DEPTHWISE) {
            fl_depthwise_conv2d_f32(&p, low, high, &d, from, weights, b, floats_of(&out));
        } else {
            (kind == LARGEST ? fl_max_pool_f32 : fl_avg_pool_f32)(&p, low, high, &d, from, floats_of(&out));
        }
        check_guard(t, &out);
        if (part) {
            buffer_t same = buffer((size_t)(pixels * d.out_c) * 4, 0);
            for (int32_t i = 0; i < pixels; i++) {
                memcpy(same.bytes + i * d.out_c * 4, whole.bytes + (i * out_all + first * m) * 4, (size_t)d.out_c * 4);
            }
            compare_floats(t, floats_of(&same), floats_of(&out), pixels, d.out_c, d.y_step);
            free(same.block), free(v.own.block), free(out.block);
        }
    }
    free(x.block), free(w.block), free(bias.block), free(whole.block);
}

int main(int argc, char **argv) {
    const long cases = argc > 1 ? atol(argv[1]) : CASES;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : SEED;
    static const struct {
        const char *name;
        void (*run)(tally_t *t);
    } kernels[] = {{"conv2d", conv2d},         {"fully_connected", fully_connected},
                   {"scale", scale},           {"pool", pool},
                   {"hostile", hostile},       {"conv2d_f32", conv2d_f32},
                   {"fc_f32", fully_connected_f32}, {"pool_f32", pool_f32},
                   {"slice_f32", slice_f32}};
    printf("variant %d\n", (int)fl_kernels_variant());
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        tally_t t = {.name = kernels[i].name};
        const long wanted = kernels[i].run == scale ? 10 * cases : cases;  // small, and all edges
        while (t.cases < wanted) {
            kernels[i].run(&t);
        }
        printf("%s %ld cases %ld bytes %ld lively\n", t.name, t.cases, t.bytes, t.lively);
    }
    printf("end\n");
    return 0;
}
