// The variants of each kernel, one file each; dispatch.c hands the public names to the one this build is for. Every
// variant takes every case: what an optimised one is not made for, it passes on to plain C.
#ifndef FIELDLOOP_KERNELS_VARIANTS_H
#define FIELDLOOP_KERNELS_VARIANTS_H

#include "fieldloop/fl_kernels.h"

#ifndef FL_KERNELS
#if defined(__ARM_FEATURE_MVE)
#define FL_KERNELS 2
#elif defined(__ARM_FEATURE_DSP) && __ARM_ARCH_PROFILE == 'M'
#define FL_KERNELS 1
#else
#define FL_KERNELS 0
#endif
#endif

// The variant that this build is for.
#if FL_KERNELS == 2
#define FL_PICK(kernel) kernel##_mve
#elif FL_KERNELS == 1
#define FL_PICK(kernel) kernel##_dsp
#else
#define FL_PICK(kernel) kernel##_plain
#endif

#define FL_DECLARE_VARIANT(variant)                                                                                     \
    void fl_conv2d_##variant(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d, const int8_t *x,   \
                             const int8_t *w, const int32_t *b, void *scratch, int8_t *out);                            \
    void fl_depthwise_conv2d_##variant(const fl_conv_params_t *p, const fl_quant_t *q, const fl_map_dims_t *d,          \
                                       const int8_t *x, const int8_t *w, const int32_t *b, void *scratch, int8_t *out); \
    void fl_fully_connected_##variant(const fl_quant_t *q, int32_t batch, int32_t out_c, int32_t in_c, const int8_t *x, \
                                      const int8_t *w, const int32_t *b, void *scratch, int8_t *out);                   \
    void fl_max_pool_##variant(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,     \
                               const int8_t *x, int8_t *out);                                                           \
    void fl_avg_pool_##variant(const fl_conv_params_t *p, int32_t act_min, int32_t act_max, const fl_map_dims_t *d,     \
                               const int8_t *x, int8_t *out);                                                           \
    void fl_add_##variant(const fl_add_params_t *p, const fl_add_quant_t *q, int32_t n, const int8_t *a,                \
                          const int8_t *b, int8_t *out);

FL_DECLARE_VARIANT(plain)
FL_DECLARE_VARIANT(dsp)
FL_DECLARE_VARIANT(mve)

#endif
