// Fully connected layer with the DSP extension: four rows of weights at a time, and the last ones alone.
#include "finish_dsp.h"
#include "kernels/variants.h"
#include "rows_dsp.h"

#if FL_KERNELS == 1

static uint32_t one_row(const int8_t *x, const int8_t *w, int32_t k, uint32_t minus) {
    uint32_t sum = 0;
    for (; k >= 4; k -= 4) {
        const uint32_t v = fl_word(x), u = fl_word(w);
        sum = fl_smlad(fl_sxtab16(minus, v), fl_sxtb16(u), sum);
        sum = fl_smlad(fl_sxtab16_odd(minus, v), fl_sxtb16_odd(u), sum);
        x += 4;
        w += 4;
    }
    for (; k > 0; k--) {
        sum = fl_smlabb(fl_sadd16((uint32_t)*x++, minus), (uint32_t)*w++, sum);
    }
    return sum;
}

static uint32_t special(const fl_quant_t *q, int32_t rows) {
    uint32_t flags = fl_is_clamped(q) ? FL_ROWS_CLAMPED : 0;
    if (q->flags & FL_OP_SINGLE_ROUNDING) {
        flags |= FL_ROWS_REST;
    }
    for (int32_t c = 0; c < (q->requant_stride ? rows : 1); c++) {
        if ((uint32_t)fl_scale_of(&q->requant[c]).down >= FL_NEAR) {
            flags |= FL_ROWS_REST;
        }
    }
    return flags;
}

void fl_fully_connected_dsp(const fl_quant_t *q, int32_t batch, int32_t out_c, int32_t in_c, const int8_t *x,
                            const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    if (q->w_zero != 0) {
        fl_fully_connected_plain(q, batch, out_c, in_c, x, w, b, scratch, out);
        return;
    }
    static const int32_t no_bias[4] = {0, 0, 0, 0};
    const fl_requant_t r = q->requant[0];
    const fl_requant_t one_scale[4] = {r, r, r, r};
    const int32_t fours = out_c & ~3;
    fl_rows_t s;
    s.b_step = b ? 16 : 0;
    s.r_step = q->requant_stride ? 4 * (int32_t)sizeof r : 0;
    s.k = in_c;
    s.minus = fl_pair_of(-q->x_zero);
    s.twice_zero_1 = 2 * q->out_zero + 1;
    s.special = special(q, fours);
    s.low = (uint8_t)q->act_min * 0x01010101u;
    s.high = (uint8_t)q->act_max * 0x01010101u;
    s.q = q;
    for (int32_t n = 0; n < batch; n++) {
        if (fours) {
            s.b = b ? b : no_bias;
            s.r = q->requant_stride ? q->requant : one_scale;
            s.x = x;
            s.x_16 = x + (in_c & ~15);
            s.x_4 = x + (in_c & ~3);
            s.x_end = x + in_c;
            s.out = out;
            s.out_end = out + fours;
            s.w = w;
            fl_rows_dsp(&s);
        }
        for (int32_t c = fours; c < out_c; c++) {
            out[c] = fl_finish(q, b, c, one_row(x, w + c * in_c, in_c, s.minus));
        }
        x += in_c;
        out += out_c;
    }
}

#else
typedef int fl_no_fully_connected_dsp_t;  // a translation unit may not be empty
#endif
