// Writing what was learned: rows of int8 weights and int32 biases, one rounded SGD step each.
#include "fieldloop/fl_backward.h"

#define WEIGHT_LIMIT 127
// An int32 accumulator has room for a bias of 2^30 and 32 768 products of 255 * 128 on top.
#define BIAS_LIMIT (1 << 30)

static float row_scale(const fl_update_t *u, uint32_t row) {
    return u->w_scale.scale[row * u->w_scale.stride];
}

// Real step of a weight is lr * dLoss/dw, dLoss/dw = x_scale * gradient; divided by the weight's scale.
static float weight_factor(const fl_update_t *u, uint32_t row) {
    return (u->lr * u->x_scale) / row_scale(u, row);
}

static float bias_factor(const fl_update_t *u, uint32_t row) {
    return u->lr / (u->x_scale * row_scale(u, row));
}

static int8_t moved_weight(int8_t w, int32_t step) {
    // steps beyond +-254 end at the clamp anyway
    if (step > 2 * WEIGHT_LIMIT) {
        step = 2 * WEIGHT_LIMIT;
    } else if (step < -2 * WEIGHT_LIMIT) {
        step = -2 * WEIGHT_LIMIT;
    }
    int32_t v = w - step;
    if (v > WEIGHT_LIMIT) {
        v = WEIGHT_LIMIT;
    } else if (v < -WEIGHT_LIMIT) {
        v = -WEIGHT_LIMIT;
    }
    return (int8_t)v;
}

static int32_t moved_bias(int32_t b, int32_t step) {
    int64_t v = (int64_t)b - step;
    if (v > BIAS_LIMIT) {
        v = BIAS_LIMIT;
    } else if (v < -BIAS_LIMIT) {
        v = -BIAS_LIMIT;
    }
    return (int32_t)v;
}

void fl_update_row(const fl_update_t *u, uint32_t row, const float *gradient, uint32_t n, uint32_t stride, uint32_t first,
                   int8_t *w) {
    float factor = weight_factor(u, row);
    for (uint32_t j = 0; j < n; j++) {
        if (gradient[j] == 0.0f) {
            continue;
        }
        uint32_t bits = fl_random(u->key, first + j * stride);
        w[j * stride] = moved_weight(w[j * stride], fl_round_stochastic(factor * gradient[j], bits));
    }
}

void fl_update_fully_connected(const fl_update_t *u, const float *delta, const uint16_t *kept, uint32_t count,
                               const int8_t *x, uint32_t cols, int8_t *w) {
    for (uint32_t e = 0; e < count; e++) {
        uint32_t i = kept ? kept[e] : e;
        float g = weight_factor(u, i) * delta[i];
        int8_t *w_row = w + (size_t)i * cols;
        for (uint32_t j = 0; j < cols; j++) {
            int32_t centred = x[j] - u->x_zero;
            if (centred == 0) {  // no input, no step: most inputs of a layer behind a ReLU
                continue;
            }
            uint32_t bits = fl_random(u->key, i * cols + j);
            w_row[j] = moved_weight(w_row[j], fl_round_stochastic(g * (float)centred, bits));
        }
    }
}

void fl_update_conv2d(const fl_update_t *u, const fl_conv_params_t *p, const fl_map_dims_t *d, const float *delta,
                      const uint16_t *grouped, uint32_t count, const int8_t *x, float *row, int8_t *w) {
    uint32_t positions = (uint32_t)(d->out_h * d->out_w);
    uint32_t n = (uint32_t)(p->kernel_h * p->kernel_w) * (uint32_t)d->in_c;
    for (uint32_t at = 0; at < count;) {
        uint32_t c = (grouped ? grouped[at] : at) / positions;
        uint32_t end = at + 1;
        while (end < count && (grouped ? grouped[end] : end) < (c + 1) * positions) {
            end++;
        }
        fl_backward_conv2d_row(p, d, delta, grouped ? grouped + at : NULL, end - at, c, x, u->x_zero, row);
        fl_update_row(u, c, row, n, 1, c * n, w + (size_t)c * n);
        at = end;
    }
}

void fl_update_depthwise_conv2d(const fl_update_t *u, const fl_conv_params_t *p, const fl_map_dims_t *d,
                                const float *delta, const uint16_t *grouped, uint32_t count, const int8_t *x,
                                float *row, int8_t *w) {
    uint32_t positions = (uint32_t)(d->out_h * d->out_w);
    uint32_t n = (uint32_t)(p->kernel_h * p->kernel_w);
    for (uint32_t at = 0; at < count;) {
        uint32_t c = (grouped ? grouped[at] : at) / positions;
        uint32_t end = at + 1;
        while (end < count && (grouped ? grouped[end] : end) < (c + 1) * positions) {
            end++;
        }
        fl_backward_depthwise_conv2d_row(p, d, delta, grouped ? grouped + at : NULL, end - at, c, x, u->x_zero, row);
        fl_update_row(u, c, row, n, (uint32_t)d->out_c, c, w + c);
        at = end;
    }
}

static void move_bias(const fl_update_t *u, uint32_t row, float sum, uint32_t first, int32_t *b) {
    uint32_t bits = fl_random(u->key, first + row);
    b[row] = moved_bias(b[row], fl_round_stochastic(bias_factor(u, row) * sum, bits));
}

void fl_update_bias(const fl_update_t *u, const float *delta, const uint16_t *grouped, uint32_t count, uint32_t positions,
                    uint32_t rows, uint32_t first, int32_t *b) {
    if (!grouped) {
        for (uint32_t c = 0; c < rows; c++) {
            float sum = 0.0f;
            for (uint32_t position = 0; position < positions; position++) {
                sum = sum + delta[position * rows + c];
            }
            move_bias(u, c, sum, first, b);
        }
        return;
    }
    for (uint32_t at = 0; at < count;) {
        uint32_t c = grouped[at] / positions;
        float sum = 0.0f;
        for (; at < count && grouped[at] < (c + 1) * positions; at++) {
            sum = sum + delta[(grouped[at] - c * positions) * rows + c];
        }
        move_bias(u, c, sum, first, b);
    }
}
