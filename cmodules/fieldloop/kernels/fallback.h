// A variant's kernel that passes everything on to plain C.
#ifndef FIELDLOOP_KERNELS_FALLBACK_H
#define FIELDLOOP_KERNELS_FALLBACK_H

#include "kernels/variants.h"

#define FL_FALL_BACK_CONV2D(variant)                                                                                   \
    void fl_conv2d_##variant(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x, \
                             const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {                         \
        fl_conv2d_plain(p, q, d, x, w, b, scratch, out);                                                              \
    }
#define FL_FALL_BACK_DEPTHWISE_CONV2D(variant)                                                                  \
    void fl_depthwise_conv2d_##variant(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, \
                                       const int8_t *x, const int8_t *w, const int32_t *b, void *scratch,      \
                                       int8_t *out) {                                                          \
        fl_depthwise_conv2d_plain(p, q, d, x, w, b, scratch, out);                                             \
    }
#define FL_FALL_BACK_FULLY_CONNECTED(variant)                                                                           \
    void fl_fully_connected_##variant(const fl_quant_t *q, int32_t batch, int32_t out_c, int32_t in_c, const int8_t *x, \
                                      const int8_t *w, const int32_t *b, void *scratch, int8_t *out) {                  \
        fl_fully_connected_plain(q, batch, out_c, in_c, x, w, b, scratch, out);                                         \
    }
#define FL_FALL_BACK_POOL(which, variant)                                                                           \
    void fl_##which##_pool_##variant(const fl_conv_params_t *p, int32_t act_min, int32_t act_max,                   \
                                     const fl_map_dims_t *d, const int8_t *x, int8_t *out) {                        \
        fl_##which##_pool_plain(p, act_min, act_max, d, x, out);                                                    \
    }
#define FL_FALL_BACK_ADD(variant)                                                                                \
    void fl_add_##variant(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t n, const int8_t *a,        \
                          const int8_t *b, int8_t *out) {                                                       \
        fl_add_plain(p, q, n, a, b, out);                                                                       \
    }

#endif
