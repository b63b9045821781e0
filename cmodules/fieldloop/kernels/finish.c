#include "finish.h"

int8_t *fl_finish_run(const fl_quant_t *q, const int32_t *b, int32_t c, int32_t n, const uint32_t *acc, int8_t *out) {
    const fl_requant_t *factor = q->requant + (uint32_t)c * q->requant_stride;
    const uint32_t stride = q->requant_stride;
    const int32_t zero = q->out_zero, lo = q->act_min - zero, hi = q->act_max - zero;
    const uint32_t once = q->flags & FL_OP_SINGLE_ROUNDING;
    for (int32_t i = 0; i < n; i++) {
        const int32_t sum = (int32_t)(acc[i] + (b ? (uint32_t)b[c + i] : 0u));
        const int32_t y = once ? fl_requantize_once(sum, *factor) : fl_requantize(sum, *factor);
        const int32_t clamped = y < lo ? lo : y > hi ? hi : y;  // before the sum, which then stays in 32 bits
        *out++ = (int8_t)(clamped + zero);
        factor += stride;
    }
    return out;
}
