// Boxes of a layer's output, as tiles compute them, against the same box of the whole layer in plain C: every byte.
//
//   variant_slices [cases [seed]]     host; on a bare board the macros CASES and SEED
//
// A box is some rows by all columns by some channels. Its input is a piece of the map: the rows that it needs, from the
// very first, and its channels alone or among others; weights, biases and factors are those of the whole layer, addressed.
// It is written among the pixels of a wider output, whose other bytes must stay as they are. Prints one line a kernel.
#include "variant_cases.h"

// Rows [row, row + rows) of all of them by channels [channel, channel + channels).
typedef struct {
    int32_t row, rows, channel, channels;
} box_t;

static box_t some_box(const fl_map_dims_t *d, int32_t unit) {
    box_t b;
    b.rows = one_in(3) ? 1 : in(1, d->out_h);
    b.row = in(0, d->out_h - b.rows);
    b.channels = unit * in(1, d->out_c / unit);
    b.channel = unit * in(0, (d->out_c - b.channels) / unit);
    return b;
}

// The rows of the input that a box needs and that lie on the map, and the window as the piece's tile sees it; 0: none.
static int piece_of(const fl_conv_params_t *p, const fl_map_dims_t *d, const box_t *b, int32_t *x_row, fl_map_dims_t *tile,
                    fl_conv_params_t *window) {
    const int32_t first = b->row * p->stride_h - p->pad_top;
    const int32_t end = first + (b->rows - 1) * p->stride_h + (p->kernel_h - 1) * p->dilation_h + 1;
    *x_row = first < 0 ? 0 : first;
    *tile = *d;
    tile->in_h = (end < d->in_h ? end : d->in_h) - *x_row;
    tile->out_h = b->rows;
    tile->out_c = b->channels;
    *window = *p;
    window->pad_top = (int16_t)(*x_row - first);
    return tile->in_h > 0;
}

// Rows of channels of a map in a block of their own, of exact size, `step` elements a pixel and noise between them.
static buffer_t piece(const buffer_t *x, const fl_map_dims_t *d, int32_t row, int32_t rows, int32_t channel,
                      int32_t channels, int32_t step) {
    buffer_t b = elements(spanned(rows * d->in_w, channels, step));
    move_pixels(rows * d->in_w, channels, x->bytes + row * d->in_w * d->in_c + channel, d->in_c, b.bytes, step);
    return b;
}

// Among the bytes of a whole output of `step` elements a pixel, those from the box's first to its last.
static buffer_t boxed(const buffer_t *whole_out, const fl_map_dims_t *d, const box_t *b, int32_t step) {
    buffer_t out = output(b->rows * d->out_w, b->channels, step);
    const int8_t *from = whole_out->bytes + b->row * d->out_w * d->out_c + b->channel;
    move_pixels(b->rows * d->out_w, b->channels, from, d->out_c, out.bytes, step);
    return out;
}

// 0 as often as the same in full.
static int32_t step_from(int32_t least) {
    return one_in(4) ? least + in(1, 9) : least;
}

static int32_t or_none(int32_t step, int32_t channels) {
    return step == channels && one_in(2) ? 0 : step;
}

// A layer's factors and biases from the box's first channel on.
static fl_quant_t from_channel(const fl_quant_t *q, int32_t channel) {
    fl_quant_t part = *q;
    part.requant += (uint32_t)channel * q->requant_stride;
    part.folded = q->folded ? q->folded + channel : NULL;
    return part;
}

static void conv2d(tally_t *t) {
    fl_map_dims_t d, tile;
    fl_conv_params_t p = window(&d, 0, 0), own;
    d.in_c = one_in(3) ? in(1, 3) : channels();
    d.out_c = one_in(2) ? in(1, 13) : 4 * in(1, 6);
    const box_t box = some_box(&d, 1);
    int32_t x_row;
    if (!piece_of(&p, &d, &box, &x_row, &tile, &own)) {
        return;
    }
    const int32_t k = p.kernel_h * p.kernel_w * d.in_c;
    scaling_t s = scaling(d.out_c);
    buffer_t x = elements((size_t)(d.in_h * d.in_w * d.in_c)), w = elements((size_t)(k * d.out_c));
    fold(&s, w.bytes, d.out_c, k, k, 1);
    buffer_t all = output(d.out_h * d.out_w, d.out_c, 0);
    fl_conv2d_plain(&p, &s.q, &d, x.bytes, w.bytes, s.b, NULL, all.bytes);

    const int32_t x_step = step_from(d.in_c), y_step = one_in(2) ? d.out_c : step_from(box.channels);
    tile.x_step = or_none(x_step, d.in_c);
    tile.y_step = or_none(y_step, box.channels);
    const fl_quant_t q = from_channel(&s.q, box.channel);
    const int32_t *bias = s.b ? s.b + box.channel : NULL;
    buffer_t rows = piece(&x, &d, x_row, tile.in_h, 0, d.in_c, x_step), a = boxed(&all, &d, &box, y_step);
    buffer_t b = output(box.rows * d.out_w, box.channels, y_step);
    buffer_t scratch = buffer(fl_conv2d_scratch(fl_kernels_variant(), &own, &tile), 0, 1);
    fl_conv2d(&own, &q, &tile, rows.bytes, w.bytes + box.channel * k, bias, scratch.n ? scratch.bytes : NULL, b.bytes);
    compare(t, &a, &b, &scratch);
    drop(&s);
    free(x.block), free(w.block), free(all.block), free(rows.block), free(a.block), free(b.block), free(scratch.block);
}

static void depthwise(tally_t *t) {
    fl_map_dims_t d, tile;
    fl_conv_params_t p = window(&d, 0, one_in(20) ? in(1, 2) : 0), own;
    const int32_t m = p.depth_multiplier = (uint16_t)(one_in(3) ? in(2, 9) : 1);
    d.in_c = one_in(2) ? 4 * in(1, 10) : channels();
    d.out_c = d.in_c * m;
    const box_t box = some_box(&d, m);
    int32_t x_row;
    if (!piece_of(&p, &d, &box, &x_row, &tile, &own)) {
        return;
    }
    tile.in_c = box.channels / m;
    const int32_t taps = p.kernel_h * p.kernel_w;
    scaling_t s = scaling(d.out_c);
    buffer_t x = elements((size_t)(d.in_h * d.in_w * d.in_c)), w = elements((size_t)(taps * d.out_c));
    fold(&s, w.bytes, d.out_c, taps, 1, d.out_c);
    buffer_t all = output(d.out_h * d.out_w, d.out_c, 0);
    fl_depthwise_conv2d_plain(&p, &s.q, &d, x.bytes, w.bytes, s.b, NULL, all.bytes);

    const int32_t x_step = one_in(3) ? d.in_c : step_from(tile.in_c);
    const int32_t y_step = one_in(2) ? d.out_c : step_from(box.channels);
    tile.x_step = or_none(x_step, tile.in_c);
    tile.y_step = or_none(y_step, box.channels);
    tile.w_step = or_none(d.out_c, box.channels);
    const fl_quant_t q = from_channel(&s.q, box.channel);
    const int32_t *bias = s.b ? s.b + box.channel : NULL;
    buffer_t rows = piece(&x, &d, x_row, tile.in_h, box.channel / m, tile.in_c, x_step);
    // the weights of the slice, and not a byte behind its last tap
    buffer_t slice = elements(spanned(taps, box.channels, d.out_c));
    memcpy(slice.bytes, w.bytes + box.channel, slice.n);
    buffer_t a = boxed(&all, &d, &box, y_step), b = output(box.rows * d.out_w, box.channels, y_step);
    buffer_t scratch = buffer(fl_depthwise_conv2d_scratch(fl_kernels_variant(), &own, &tile), 0, 1);
    fl_depthwise_conv2d(&own, &q, &tile, rows.bytes, slice.bytes, bias, scratch.n ? scratch.bytes : NULL, b.bytes);
    compare(t, &a, &b, &scratch);
    drop(&s);
    free(x.block), free(w.block), free(all.block), free(rows.block), free(slice.block), free(a.block), free(b.block);
    free(scratch.block);
}

static void pool(tally_t *t, int maximum) {
    fl_map_dims_t d, tile;
    fl_conv_params_t p = window(&d, 1, 0), own;
    d.in_c = d.out_c = one_in(2) ? 4 * in(1, 10) : channels();
    const box_t box = some_box(&d, 1);
    int32_t x_row;
    if (!piece_of(&p, &d, &box, &x_row, &tile, &own)) {
        return;
    }
    tile.in_c = box.channels;
    int32_t low, high;
    clamp_of(&low, &high);
    buffer_t x = elements((size_t)(d.in_h * d.in_w * d.in_c)), all = output(d.out_h * d.out_w, d.out_c, 0);
    (maximum ? fl_max_pool_plain : fl_avg_pool_plain)(&p, low, high, &d, x.bytes, all.bytes);

    const int32_t x_step = one_in(3) ? d.in_c : step_from(tile.in_c);
    const int32_t y_step = one_in(2) ? d.out_c : step_from(box.channels);
    tile.x_step = or_none(x_step, tile.in_c);
    tile.y_step = or_none(y_step, box.channels);
    buffer_t rows = piece(&x, &d, x_row, tile.in_h, box.channel, tile.in_c, x_step);
    buffer_t a = boxed(&all, &d, &box, y_step), b = output(box.rows * d.out_w, box.channels, y_step);
    (maximum ? fl_max_pool : fl_avg_pool)(&own, low, high, &tile, rows.bytes, b.bytes);
    compare(t, &a, &b, NULL);
    free(x.block), free(all.block), free(rows.block), free(a.block), free(b.block);
}

static void max_pool(tally_t *t) {
    pool(t, 1);
}

static void avg_pool(tally_t *t) {
    pool(t, 0);
}

int main(int argc, char **argv) {
    static const kernel_t kernels[] = {
        {"conv2d", conv2d}, {"depthwise_conv2d", depthwise}, {"max_pool", max_pool}, {"avg_pool", avg_pool}};
    const long cases = start(argc, argv);
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        run_cases(&kernels[i], cases);
    }
    printf("end\n");
    return 0;
}
