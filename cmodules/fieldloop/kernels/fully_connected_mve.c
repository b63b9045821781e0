// Fully connected layer: four outputs at a time over the same inputs, at most three one by one.
#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "finish.h"
#include "finish_mve.h"
#include "mve.h"
#include "rows_of_weights_mve.h"

enum { SUMS_MAX = 64 };

static uint32_t dot(const int8_t *x, const int8_t *w, int32_t k) {
    int32_t acc = 0;
    for (; k >= 16; k -= 16) {
        acc = vmladavaq_s8(acc, vldrbq_s8(x), vldrbq_s8(w));
        x += 16;
        w += 16;
    }
    const mve_pred16_t some = vctp8q((uint32_t)k);
    return (uint32_t)vmladavaq_s8(acc, vldrbq_z_s8(x, some), vldrbq_z_s8(w, some));
}

// Channels `first`.., whose folded biases begin at `folded`, of one row of inputs.
static void run(const fl_quant_t *q, int32_t first, int32_t channels, int32_t k, const int8_t *x, const int8_t *w,
                const int32_t *folded, int8_t *out) {
    const fl_requant_t *requant = q->requant + (uint32_t)first * q->requant_stride;
    const fl_requant_t one = requant[0];
    const fl_requant_t same[4] = {one, one, one, one};
    fl_rows_of_weights_t r = {.x = x, .pad = -k & 15, .k = k, .zero = q->out_zero, .w = w, .folded = folded, .out = out};
    r.blocks = (k + r.pad) / 16 - 1;
    r.multiplier = one.multiplier;
    r.shift = one.shift;
    r.requant = q->requant_stride ? requant : same;
    r.requant_step = q->requant_stride ? sizeof(same) : 0;
    const int32_t whole = channels & ~3;
    if (whole) {
        r.w_end = w + whole * k;
        if (q->requant_stride == 0 && one.shift < 0) {
            fl_rows_of_weights_right_mve(&r);
        } else {
            fl_rows_of_weights_any_mve(&r);
        }
    }
    fl_quant_t each = *q;
    each.requant = requant;
    each.act_min = -128;
    each.act_max = 127;
    for (int32_t c = whole; c < channels; c++) {
        out[c] = fl_finish(&each, folded, c, dot(x, w + c * k, k));
    }
}

void fl_fully_connected_mve(const fl_quant_t *q, int32_t batch, int32_t out_c, int32_t in_c, const int8_t *x,
                            const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    if (q->w_zero != 0 || q->flags & FL_OP_SINGLE_ROUNDING) {
        fl_fully_connected_plain(q, batch, out_c, in_c, x, w, b, scratch, out);
        return;
    }
    if (q->folded) {
        for (int32_t n = 0; n < batch; n++) {
            run(q, 0, out_c, in_c, x + n * in_c, w, q->folded, out + n * out_c);
        }
    } else {
        for (int32_t c = 0; c < out_c; c += SUMS_MAX) {
            int32_t sums[SUMS_MAX];
            const int32_t channels = out_c - c < SUMS_MAX ? out_c - c : SUMS_MAX;
            const int8_t *rows = w + c * in_c;
            fl_fold_mve(q, rows, b ? b + c : 0, channels, in_c, sums);
            for (int32_t n = 0; n < batch; n++) {
                run(q, c, channels, in_c, x + n * in_c, rows, sums, out + n * out_c + c);
            }
        }
    }
    fl_clamp_map_mve(q, batch * out_c, out);
}

#else
typedef int fl_no_fully_connected_mve_t;  // a translation unit may not be empty
#endif
