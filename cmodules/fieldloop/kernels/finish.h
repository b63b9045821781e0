// From accumulator to output channel c: what conv2d, depthwise conv2d and fully connected end with.
#ifndef FIELDLOOP_KERNELS_FINISH_H
#define FIELDLOOP_KERNELS_FINISH_H

#include "fieldloop/fl_kernels.h"
#include "requant.h"

static inline int8_t fl_finish(const fl_quant_t *q, const int32_t *b, int32_t c, uint32_t acc) {
    acc += b ? (uint32_t)b[c] : 0u;
    const fl_requant_t r = q->requant[(uint32_t)c * q->requant_stride];
    const int32_t y = q->flags & FL_OP_SINGLE_ROUNDING ? fl_requantize_once((int32_t)acc, r)
                                                       : fl_requantize((int32_t)acc, r);
    return fl_offset_clamp(y, q->out_zero, q->act_min, q->act_max);
}

// The same of n channels from c on; returns the place behind the last output. A call (finish.c): see dot.h.
int8_t *fl_finish_run(const fl_quant_t *q, const int32_t *b, int32_t c, int32_t n, const uint32_t *acc, int8_t *out);

#endif
