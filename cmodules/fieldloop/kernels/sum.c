// The public kernels in two halves are those of the variant this build is for; the ends of pools and means, which take
// one sum a channel, are plain C everywhere.
#include "sum.h"

#include "kernels/variants.h"
#include "requant.h"

void fl_conv2d_sum(const fl_conv_params_t *p, int32_t x_zero, int32_t w_zero, const fl_map_dims_t *d,
                   const fl_part_t *part, const int8_t *x, const int8_t *w, int32_t *acc) {
    FL_PICK(fl_conv2d_sum)(p, x_zero, w_zero, d, part, x, w, acc);
}

void fl_finish_sums(const fl_quant_t *q, int32_t pixels, int32_t channels, const int32_t *b, const int32_t *acc,
                    int8_t *out, int32_t out_step) {
    FL_PICK(fl_finish_sums)(q, pixels, channels, b, acc, out, out_step);
}

void fl_pool_sum(int32_t pixels, int32_t channels, const int8_t *x, int32_t x_step, int32_t *acc) {
    FL_PICK(fl_pool_sum)(pixels, channels, x, x_step, acc);
}

// Both run upwards and read an accumulator before they write a byte of it or of those before it: `out` may be `acc`.

void fl_finish_avg_pool(int32_t count, int32_t act_min, int32_t act_max, int32_t channels, const int32_t *acc,
                        int8_t *out) {
    const uint32_t half = (uint32_t)count / 2;
    for (int32_t c = 0; c < channels; c++) {
        const int32_t sum = acc[c];
        // as avg_pool.c rounds; unsigned, because an image may bring any sum about
        const int32_t nudged = (int32_t)(sum > 0 ? (uint32_t)sum + half : (uint32_t)sum - half);
        out[c] = fl_clamp(nudged / count, act_min, act_max);
    }
}

void fl_finish_mean(const fl_mean_params_t *p, const fl_mean_quant_t *q, int32_t count, int32_t channels,
                    const int32_t *acc, int8_t *out) {
    const uint32_t zero = (uint32_t)count * (uint32_t)q->x_zero;
    for (int32_t c = 0; c < channels; c++) {
        const int32_t sum = (int32_t)((uint32_t)acc[c] - zero);
        out[c] = fl_offset_clamp(fl_requantize(sum, p->out), q->out_zero, q->act_min, q->act_max);
    }
}
