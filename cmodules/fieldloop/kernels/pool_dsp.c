// Pools with the DSP extension: four channels a word.
#include "dsp.h"
#include "kernels/variants.h"
#include "requant.h"
#include "steps.h"
#include "taps.h"

#if FL_KERNELS == 1

// What one output pixel sees of four channels.
typedef struct {
    const int8_t *x;
    int32_t rows, taps;
    int32_t x_row, x_tap;
} window_t;

typedef uint32_t (*pool_t)(const window_t *v, int32_t act_min, int32_t act_max);

// Sums of int16 hold this many int8.
enum { SUMMED = 256 };

static uint32_t max4(const window_t *v, int32_t act_min, int32_t act_max) {
    uint32_t best = (uint8_t)act_min * 0x01010101u;
    const int8_t *row = v->x;
    for (int32_t r = 0; r < v->rows; r++) {
        const int8_t *x = row;
        for (int32_t t = v->taps; t > 0; t--) {
            best = fl_max8(fl_word(x), best);
            x += v->x_tap;
        }
        row += v->x_row;
    }
    return fl_min8(best, (uint8_t)act_max * 0x01010101u);
}

static inline uint32_t mean(int32_t sum, int32_t count, int32_t act_min, int32_t act_max) {
    return (uint8_t)fl_clamp((sum > 0 ? sum + count / 2 : sum - count / 2) / count, act_min, act_max);
}

static uint32_t mean4(const window_t *v, int32_t act_min, int32_t act_max) {
    int32_t sum[4] = {0, 0, 0, 0};
    const int32_t count = v->rows * v->taps;
    uint32_t even = 0, odd = 0;
    const int8_t *row = v->x;
    for (int32_t r = 0; r < v->rows; r++) {
        const int8_t *x = row;
        int32_t t = v->taps;
        for (; t >= 2; t -= 2) {
            const uint32_t a = fl_word(x), b = fl_word(x + v->x_tap);
            even = fl_sxtab16(fl_sxtab16(even, a), b);
            odd = fl_sxtab16_odd(fl_sxtab16_odd(odd, a), b);
            x += 2 * v->x_tap;
        }
        if (t) {
            const uint32_t a = fl_word(x);
            even = fl_sxtab16(even, a);
            odd = fl_sxtab16_odd(odd, a);
        }
        row += v->x_row;
        if (count > SUMMED || r + 1 == v->rows) {
            sum[0] += (int16_t)(uint16_t)even;
            sum[1] += (int16_t)(uint16_t)odd;
            sum[2] += (int16_t)(uint16_t)(even >> 16);
            sum[3] += (int16_t)(uint16_t)(odd >> 16);
            even = 0;
            odd = 0;
        }
    }
    uint32_t word = mean(sum[0], count, act_min, act_max) | mean(sum[1], count, act_min, act_max) << 8;
    word |= mean(sum[2], count, act_min, act_max) << 16;
    return word | mean(sum[3], count, act_min, act_max) << 24;
}

static void pool(pool_t kind, const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,
                 const int8_t *x, int8_t *out) {
    const int32_t channels = d->in_c, x_step = fl_x_step(d), y_step = fl_y_step(d), x_row = d->in_w * x_step;
    for (int32_t oy = 0; oy < d->out_h; oy++) {
        const fl_taps_t ty = fl_taps(oy, p->stride_h, p->pad_top, 1, p->kernel_h, d->in_h);
        for (int32_t ox = 0; ox < d->out_w; ox++) {
            const fl_taps_t tx = fl_taps(ox, p->stride_w, p->pad_left, 1, p->kernel_w, d->in_w);
            const int8_t *corner = x + (ty.start + ty.first) * x_row + (tx.start + tx.first) * x_step;
            window_t v = {.rows = ty.end - ty.first, .taps = tx.end - tx.first, .x_row = x_row, .x_tap = x_step};
            if (v.taps == d->in_w && v.rows * v.taps <= SUMMED) {  // rows that follow one another are one
                v.taps *= v.rows;
                v.rows = 1;
            }
            for (int32_t from = 0; from < channels; from += 4) {
                // the last four may overlap those before them
                const int32_t c = from + 4 <= channels ? from : channels - 4;
                v.x = corner + c;
                fl_put_word(out + c, kind(&v, act_min, act_max));
            }
            out += y_step;
        }
    }
}

void fl_max_pool_dsp(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,
                     const int8_t *x, int8_t *out) {
    if (d->in_c < 4) {
        fl_max_pool_plain(p, act_min, act_max, d, x, out);
        return;
    }
    pool(max4, p, act_min, act_max, d, x, out);
}

void fl_avg_pool_dsp(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,
                     const int8_t *x, int8_t *out) {
    if (d->in_c < 4 || p->kernel_w > SUMMED) {
        fl_avg_pool_plain(p, act_min, act_max, d, x, out);
        return;
    }
    pool(mean4, p, act_min, act_max, d, x, out);
}

#else
typedef int fl_no_pool_dsp_t;  // a translation unit may not be empty
#endif
