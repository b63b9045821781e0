// Fully connected layer: four outputs at a time over the same inputs.
#include "dot.h"
#include "finish.h"
#include "kernels/variants.h"

void fl_fully_connected_plain(const fl_quant_t *q, int32_t batch, int32_t out_c, int32_t in_c, const int8_t *x,
                              const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    (void)scratch;
    for (int32_t n = 0; n < batch; n++) {
        const uint32_t base = q->w_zero ? 0u - (uint32_t)q->w_zero * fl_centred_sum(x, in_c, q->x_zero) : 0u;
        const int8_t *row = w;
        int32_t c = 0;
        for (; c + 4 <= out_c; c += 4) {
            uint32_t acc[4] = {base, base, base, base};
            fl_dot4(x, row, in_c, in_c, q->x_zero, acc);
            out = fl_finish_run(q, b, c, 4, acc, out);
            row += 4 * in_c;
        }
        for (; c < out_c; c++) {
            const uint32_t acc = base + fl_dot(x, row, in_c, q->x_zero);
            out = fl_finish_run(q, b, c, 1, &acc, out);
            row += in_c;
        }
        x += in_c;
    }
}
