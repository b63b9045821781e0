// How important a channel is, for selection of whole channels: by its errors, its outputs or its weights. All are sums of
// magnitudes below 2^31, so that they rank as keys.
#include <string.h>

#include "fieldloop/fl_select.h"

static uint32_t error_f32(const uint32_t *delta, uint32_t positions, uint32_t channels) {
    float sum = 0.0f;
    for (uint32_t p = 0; p < positions; p++, delta += channels) {
        uint32_t bits = *delta & 0x7fffffffu;
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        sum = sum + magnitude;
    }
    uint32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    return bits & 0x7fffffffu;  // the sign of a NaN is the machine's
}

static uint32_t error_int16(const uint32_t *delta, uint32_t positions, uint32_t channels) {
    uint32_t sum = 0;
    for (uint32_t p = 0; p < positions; p++, delta += channels) {
        sum += *delta >> 31 ? 0u - *delta : *delta;
    }
    return sum;
}

void fl_channel_errors(const uint32_t *delta, uint32_t deltas, uint32_t positions, uint32_t channels,
                       uint32_t *importance) {
    for (uint32_t c = 0; c < channels; c++) {
        importance[c] = deltas == FL_DELTAS_INT16 ? error_int16(delta + c, positions, channels)
                                                  : error_f32(delta + c, positions, channels);
    }
}

void fl_channel_activations(const int8_t *q, int32_t zero_point, uint32_t positions, uint32_t channels,
                            uint32_t *importance) {
    for (uint32_t c = 0; c < channels; c++) {
        const int8_t *at = q + c;
        uint32_t sum = 0;
        for (uint32_t p = 0; p < positions; p++, at += channels) {
            int32_t v = *at - zero_point;
            sum += (uint32_t)(v < 0 ? -v : v);
        }
        importance[c] = sum;
    }
}

void fl_channel_weights(const int8_t *w, uint32_t stride, uint32_t step, uint32_t n, uint32_t channels,
                        uint32_t *importance) {
    for (uint32_t c = 0; c < channels; c++) {
        uint32_t sum = 0;
        for (uint32_t j = 0; j < n; j++) {
            int32_t v = w[c * stride + j * step];
            sum += (uint32_t)(v < 0 ? -v : v);
        }
        importance[c] = sum;
    }
}
