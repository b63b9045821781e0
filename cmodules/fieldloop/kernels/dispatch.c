// The public kernels are those of the variant this build is for.
#include "kernels/variants.h"

fl_variant_t fl_kernels_variant(void) {
    return (fl_variant_t)FL_KERNELS;
}

void fl_conv2d(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
               const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    FL_PICK(fl_conv2d)(p, q, d, x, w, b, scratch, out);
}

void fl_depthwise_conv2d(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,
                         const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    FL_PICK(fl_depthwise_conv2d)(p, q, d, x, w, b, scratch, out);
}

void fl_fully_connected(const fl_quant_t *q, int32_t batch, int32_t out_c, int32_t in_c, const int8_t *x,
                        const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {
    FL_PICK(fl_fully_connected)(q, batch, out_c, in_c, x, w, b, scratch, out);
}

void fl_max_pool(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d, const int8_t *x,
                 int8_t *out) {
    FL_PICK(fl_max_pool)(p, act_min, act_max, d, x, out);
}

void fl_avg_pool(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d, const int8_t *x,
                 int8_t *out) {
    FL_PICK(fl_avg_pool)(p, act_min, act_max, d, x, out);
}

void fl_add(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t n, const int8_t *a, const int8_t *b,
            int8_t *out) {
    FL_PICK(fl_add)(p, q, n, a, b, out);
}
