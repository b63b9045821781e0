// Random cases through a variant's kernels and through plain C: every byte must be the same.
//
//   variant_kernels [cases [seed]]     host; on a bare board the macros CASES and SEED
//
// Prints one line a kernel; "differs" ends the run.
#include "variant_cases.h"

// Between pixels and taps other channels may lie, of wider maps. The reference sees them without.
static int32_t step_of(int32_t channels) {
    return one_in(2) ? 0 : channels + (one_in(3) ? 0 : in(1, 13));
}

static buffer_t packed(const buffer_t *b, int32_t pixels, int32_t channels, int32_t step) {
    buffer_t tight = buffer((size_t)(pixels * channels), 0, 0);
    move_pixels(pixels, channels, b->bytes, step ? step : channels, tight.bytes, channels);
    return tight;
}

static buffer_t spread(const buffer_t *tight, const fl_map_dims_t *d) {
    buffer_t b = output(d->out_h * d->out_w, d->out_c, d->y_step);
    move_pixels(d->out_h * d->out_w, d->out_c, tight->bytes, d->out_c, b.bytes, d->y_step ? d->y_step : d->out_c);
    return b;
}

static fl_map_dims_t without_steps(fl_map_dims_t d) {
    d.x_step = d.y_step = d.w_step = 0;
    return d;
}

static void conv2d(tally_t *t) {
    fl_map_dims_t d;
    fl_conv_params_t p = window(&d, 0, 0);
    p.groups = (uint16_t)(one_in(4) ? in(2, 4) : in(0, 1));
    const int32_t groups = p.groups > 1 ? p.groups : 1;
    d.in_c = (one_in(3) ? in(1, 3) : channels()) * groups;
    d.out_c = in(1, 13) * groups;
    d.x_step = step_of(d.in_c);
    d.y_step = step_of(d.out_c);
    const fl_map_dims_t tight = without_steps(d);
    const int32_t k = p.kernel_h * p.kernel_w * (d.in_c / groups), pixels = d.in_h * d.in_w;
    scaling_t s = scaling(d.out_c);
    buffer_t x = elements(spanned(pixels, d.in_c, d.x_step)), w = elements((size_t)(k * d.out_c));
    fold(&s, w.bytes, d.out_c, k, k, 1);
    buffer_t own = packed(&x, pixels, d.in_c, d.x_step), plain = output(d.out_h * d.out_w, d.out_c, 0);
    fl_conv2d_plain(&p, &s.q, &tight, own.bytes, w.bytes, s.b, NULL, plain.bytes);
    buffer_t a = spread(&plain, &d), b = output(d.out_h * d.out_w, d.out_c, d.y_step);
    buffer_t scratch = buffer(fl_conv2d_scratch(fl_kernels_variant(), &p, &d), 0, 1);
    fl_conv2d(&p, &s.q, &d, x.bytes, w.bytes, s.b, scratch.n ? scratch.bytes : NULL, b.bytes);
    compare(t, &a, &b, &scratch);
    drop(&s);
    free(x.block), free(w.block), free(own.block), free(plain.block), free(a.block), free(b.block), free(scratch.block);
}

static void depthwise(tally_t *t) {
    fl_map_dims_t d;
    fl_conv_params_t p = window(&d, 0, one_in(10) ? in(1, 2) : 0);
    p.depth_multiplier = (uint16_t)(one_in(3) ? in(2, 9) : 1);
    d.in_c = one_in(6) ? 1 : channels();
    d.out_c = d.in_c * p.depth_multiplier;
    d.x_step = step_of(d.in_c);
    d.y_step = step_of(d.out_c);
    d.w_step = step_of(d.out_c);
    const fl_map_dims_t tight = without_steps(d);
    const int32_t taps = p.kernel_h * p.kernel_w, pixels = d.in_h * d.in_w;
    scaling_t s = scaling(d.out_c);
    buffer_t x = elements(spanned(pixels, d.in_c, d.x_step)), w = elements(spanned(taps, d.out_c, d.w_step));
    buffer_t own = packed(&x, pixels, d.in_c, d.x_step), own_w = packed(&w, taps, d.out_c, d.w_step);
    fold(&s, own_w.bytes, d.out_c, taps, 1, d.out_c);
    buffer_t plain = output(d.out_h * d.out_w, d.out_c, 0);
    fl_depthwise_conv2d_plain(&p, &s.q, &tight, own.bytes, own_w.bytes, s.b, NULL, plain.bytes);
    buffer_t a = spread(&plain, &d), b = output(d.out_h * d.out_w, d.out_c, d.y_step);
    buffer_t scratch = buffer(fl_depthwise_conv2d_scratch(fl_kernels_variant(), &p, &d), 0, 1);
    fl_depthwise_conv2d(&p, &s.q, &d, x.bytes, w.bytes, s.b, scratch.n ? scratch.bytes : NULL, b.bytes);
    compare(t, &a, &b, &scratch);
    drop(&s);
    free(x.block), free(w.block), free(own.block), free(own_w.block), free(plain.block), free(a.block), free(b.block);
    free(scratch.block);
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
    d.x_step = step_of(d.in_c);
    d.y_step = step_of(d.out_c);
    const fl_map_dims_t tight = without_steps(d);
    buffer_t x = elements(spanned(d.in_h * d.in_w, d.in_c, d.x_step));
    buffer_t own = packed(&x, d.in_h * d.in_w, d.in_c, d.x_step), plain = output(d.out_h * d.out_w, d.out_c, 0);
    (maximum ? fl_max_pool_plain : fl_avg_pool_plain)(&p, low, high, &tight, own.bytes, plain.bytes);
    buffer_t a = spread(&plain, &d), b = output(d.out_h * d.out_w, d.out_c, d.y_step);
    (maximum ? fl_max_pool : fl_avg_pool)(&p, low, high, &d, x.bytes, b.bytes);
    compare(t, &a, &b, NULL);
    free(x.block), free(own.block), free(plain.block), free(a.block), free(b.block);
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
    {CONV, {2, 2, 301, 4, 4, 3, 0, 0, 0}, WINDOW(1, 1, 1, 1, 1, 1, 1)},
    {CONV, {1, 32, 4096, 2, 32, 2, 0, 0, 0}, WINDOW(1, 32767, 1, 1, 1, 32767, 0)},
    {CONV, {1, 2, 40000, 1, 2, 2, 0, 0, 0}, WINDOW(1, 65535, 1, 65535, 65535, 0, 0)},
    {DEPTHWISE, {1, 1, 65536, 1, 1, 65536, 0, 0, 0}, WINDOW(1, 65535, 65535, 1, 1, 0, 0)},
    {DEPTHWISE, {1, 2, 32768, 1, 2, 32768, 0, 0, 0}, WINDOW(1, 1, 1, 32768, 1, 0, 0)},
    {DEPTHWISE, {1, 3, 40000, 1, 2, 40000, 0, 0, 0}, WINDOW(2, 1, 1, 32767, 1, 32767, 0)},
    // steps of all that a tile can say, and one more than Helium's places of four pixels can
    {CONV, {2, 1, 4, 2, 1, 2, 65535, 65535, 0}, WINDOW(1, 1, 1, 1, 1, 0, 0)},
    {CONV, {1, 9, 3, 1, 5, 3, 5000, 16384, 0}, WINDOW(1, 1, 2, 1, 1, 0, 0)},
    {CONV, {1, 9, 3, 1, 5, 3, 0, 16385, 0}, WINDOW(1, 1, 2, 1, 1, 0, 0)},
    {DEPTHWISE, {3, 1, 8, 1, 1, 8, 65535, 65535, 65535}, WINDOW(3, 1, 1, 1, 1, 0, 1)},
    {AVERAGE, {1, 2, 7, 1, 2, 7, 65535, 65535, 0}, WINDOW(1, 1, 1, 1, 1, 0, 0)},
    {LARGEST, {1, 2, 7, 1, 2, 7, 65535, 65535, 0}, WINDOW(1, 1, 1, 1, 1, 0, 0)},
    {AVERAGE, {20, 20, 4, 1, 1, 4, 0, 0, 0}, WINDOW(65535, 1, 1, 1, 1, 32767, 32767)},
    {LARGEST, {20, 20, 4, 1, 1, 4, 0, 0, 0}, WINDOW(65535, 1, 1, 1, 1, 32767, 32767)},
};

static void edge(tally_t *t) {
    const edge_t *e = &edges[(size_t)t->cases % (sizeof edges / sizeof edges[0])];
    const fl_map_dims_t *d = &e->d;
    const fl_conv_params_t p = e->p;
    const int weighted = e->kind == CONV || e->kind == DEPTHWISE;
    const size_t taps = weighted ? (size_t)p.kernel_h * p.kernel_w : 0;
    scaling_t s = scaling(d->out_c);
    s.q.w_zero = 0;
    buffer_t x = elements(spanned(d->in_h * d->in_w, d->in_c, d->x_step));
    buffer_t w = elements(e->kind == CONV        ? taps * (size_t)(d->out_c * d->in_c)
                          : e->kind == DEPTHWISE ? spanned((int32_t)taps, d->out_c, d->w_step)
                                                 : 0);
    for (size_t i = 0; i < x.n && !weighted; i++) {
        x.bytes[i] = (int8_t)in(90, 127);  // 400 of them exceed 16 bits
    }
    const int32_t pixels = d->out_h * d->out_w;
    buffer_t a = output(pixels, d->out_c, d->y_step), b = output(pixels, d->out_c, d->y_step);
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
    static const kernel_t kernels[] = {{"conv2d", conv2d},     {"depthwise_conv2d", depthwise},
                                       {"fully_connected", fully_connected},
                                       {"scale", scale},       {"max_pool", max_pool},
                                       {"avg_pool", avg_pool}, {"add", add},
                                       {"edge", edge}};
    const long cases = start(argc, argv);
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        const kernel_t *k = &kernels[i];
        run_cases(k, k->run == scale  ? 10 * cases  // small, and all edges
                     : k->run == edge ? 64          // large
                                      : cases);
    }
    printf("end\n");
    return 0;
}
