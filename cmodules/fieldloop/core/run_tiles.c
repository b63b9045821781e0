// Boxes of operators: what a step of a tiled plan computes, from pieces of the arena to pieces of the arena.
#include <string.h>

#include "core/image.h"
#include "core/run.h"
#include "core/tiles.h"
#include "fieldloop/fl_kernels_f32.h"
#include "fieldloop/fl_kernels_sum.h"

// Accumulators begin at 0: the same bytes in int32 and f32.
static void begin(const fl_plan_step_t *s, int32_t n, void *acc) {
    if (s->flags & FL_STEP_FIRST) {
        fl_fill(n, sizeof(int32_t), 0, acc);
    }
}

// Weights stay where they are: the box's are those from its first channels on.
static void run_weighted(const fl_model_t *m, const fl_plan_step_t *s, const fl_tile_t *t) {
    const fl_op_t *op = &m->ops[s->op];
    const fl_map_dims_t *d = &t->d;
    const int is_float = m->tensors[op->in[0]].dtype == FL_F32;
    const int partial = (s->flags & FL_STEP_PARTIAL) != 0;
    const int flattens = partial && op->opcode == FL_OP_FULLY_CONNECTED;
    const fl_part_t part = {
        .tap = t->whole.in_c,
        .row = t->whole.in_c * (flattens ? t->whole.in_h * t->whole.in_w : t->p.kernel_h * t->p.kernel_w),
    };
    int32_t from = s->channel;
    if (op->opcode != FL_OP_DEPTHWISE_CONV2D) {
        from = from * part.row + s->x_channel;
    }
    if (flattens) {
        from += s->x_row * t->whole.in_w * part.tap;
    }
    const void *x = m->arena + s->x;
    void *y = m->arena + s->y;
    void *z = m->arena + s->z;
    const void *w = fl_model_weights(m, s->op) + (is_float ? 4 : 1) * (uint32_t)from;
    const int32_t *b = fl_model_bias(m, s->op);
    b = b ? b + s->channel : NULL;
    const int32_t pixels = d->out_h * d->out_w;
    if (partial) {
        begin(s, pixels * d->out_c, y);
    }
    const int finishes = (s->flags & FL_STEP_LAST) != 0;
    if (is_float) {
        const float lo = fl_float_of(op->act_min);
        const float hi = fl_float_of(op->act_max);
        const float *bias = (const float *)(const void *)b;
        if (partial) {
            fl_conv2d_sum_f32(&t->p, d, &part, x, w, y);
            if (finishes) {
                fl_finish_sums_f32(lo, hi, pixels, d->out_c, bias, y, z, s->z_step);
            }
        } else if (op->opcode == FL_OP_DEPTHWISE_CONV2D) {
            fl_depthwise_conv2d_f32(&t->p, lo, hi, d, x, w, bias, y);
        } else {
            fl_conv2d_f32(&t->p, lo, hi, d, x, w, bias, y);
        }
        return;
    }
    fl_quant_t q = fl_quant_of(m, s->op);
    q.requant += s->channel * q.requant_stride;
    q.folded = q.folded ? q.folded + s->channel : NULL;
    if (partial) {
        fl_conv2d_sum(&t->p, q.x_zero, q.w_zero, d, &part, x, w, y);
        if (finishes) {
            fl_finish_sums(&q, pixels, d->out_c, b, y, z, s->z_step);
        }
    } else if (op->opcode == FL_OP_DEPTHWISE_CONV2D) {
        fl_depthwise_conv2d(&t->p, &q, d, x, w, b, m->scratch, y);
    } else if (op->opcode == FL_OP_CONV2D) {
        fl_conv2d(&t->p, &q, d, x, w, b, m->scratch, y);
    } else {
        const int8_t *in = x;
        int8_t *out = y;
        for (int32_t i = 0; i < d->in_h; i++) {
            fl_fully_connected(&q, 1, d->out_c, d->in_c, in + i * d->x_step, w, b, m->scratch, out + i * d->y_step);
        }
    }
}

// Average pools over one window and means, in parts.
static void run_sums(const fl_model_t *m, const fl_plan_step_t *s, const fl_tile_t *t) {
    const fl_op_t *op = &m->ops[s->op];
    const int is_float = m->tensors[op->in[0]].dtype == FL_F32;
    const int is_mean = op->opcode == FL_OP_MEAN;
    const int32_t channels = t->d.out_c;
    const int32_t columns = is_mean ? t->whole.in_w : t->p.kernel_w;
    const int32_t count = columns * (is_mean ? t->whole.in_h : t->p.kernel_h);
    const void *x = m->arena + s->x;
    void *y = m->arena + s->y;
    void *z = m->arena + s->z;
    begin(s, channels, y);
    // rows that follow each other are one
    const int32_t joined = columns == t->whole.in_w ? s->x_rows : 1;
    for (int32_t i = 0; i < s->x_rows; i += joined) {
        const int32_t from = i * t->whole.in_w * s->x_step;
        if (is_float) {
            fl_pool_sum_f32(joined * columns, channels, (const float *)x + from, s->x_step, y);
        } else {
            fl_pool_sum(joined * columns, channels, (const int8_t *)x + from, s->x_step, y);
        }
    }
    if (!(s->flags & FL_STEP_LAST)) {
        return;
    }
    if (is_float) {
        fl_finish_mean_f32(count, fl_float_of(op->act_min), fl_float_of(op->act_max), channels, y, z);
    } else if (is_mean) {
        const fl_mean_quant_t q = fl_mean_quant_of(m, op);
        fl_finish_mean(&op->p.mean, &q, count, channels, y, z);
    } else {
        fl_finish_avg_pool(count, op->act_min, op->act_max, channels, y, z);
    }
}

static void run_pool(const fl_model_t *m, const fl_plan_step_t *s, const fl_tile_t *t) {
    const fl_op_t *op = &m->ops[s->op];
    const void *x = m->arena + s->x;
    void *y = m->arena + s->y;
    if (s->flags & FL_STEP_PARTIAL) {
        run_sums(m, s, t);
    } else if (m->tensors[op->in[0]].dtype == FL_F32) {
        const float lo = fl_float_of(op->act_min);
        const float hi = fl_float_of(op->act_max);
        (op->opcode == FL_OP_MAX_POOL ? fl_max_pool_f32 : fl_avg_pool_f32)(&t->p, lo, hi, &t->d, x, y);
    } else {
        (op->opcode == FL_OP_MAX_POOL ? fl_max_pool : fl_avg_pool)(&t->p, op->act_min, op->act_max, &t->d, x, y);
    }
}

// Some channels of the rows that the indices name.
static void run_embedding(const fl_model_t *m, const fl_plan_step_t *s, const fl_tile_t *t) {
    const fl_op_t *op = &m->ops[s->op];
    const uint32_t bytes = fl_dtype_bytes(m->tensors[op->out[0]].dtype);
    const int is_byte = m->tensors[op->in[0]].dtype == FL_I8;
    const int32_t last = m->tensors[op->in[1]].shape[0] - 1;
    const uint8_t *table = fl_model_tensor(m, op->in[1]);
    const void *x = m->arena + s->x;
    uint8_t *out = m->arena + s->y;
    for (int32_t i = 0; i < s->rows; i++) {
        const int32_t at = i * s->x_step;
        int32_t index = is_byte ? ((const int8_t *)x)[at] : ((const int32_t *)x)[at];
        index = index < 0 ? 0 : index > last ? last : index;
        memcpy(out, table + (uint32_t)(index * t->whole.out_c + s->channel) * bytes, s->channels * bytes);
        out += s->y_step * bytes;
    }
}

static void run_elements(const fl_model_t *m, const fl_plan_step_t *s, const fl_tile_t *t) {
    const fl_op_t *op = &m->ops[s->op];
    const uint32_t in = fl_dtype_bytes(m->tensors[op->in[0]].dtype);
    const uint32_t out = fl_dtype_bytes(m->tensors[op->out[0]].dtype);
    const int binary = fl_is_binary(op->opcode);
    const int32_t n = s->channels;
    int32_t pixels = t->d.out_h * t->d.out_w;
    fl_broadcast_t d = {{1, 1, 1, n}, {0, 0, 0, 1}, {0, 0, 0, 1}};
    if (s->x_step == n && s->y_step == n && (!binary || s->z_step == n)) {
        d.n[3] *= pixels;
        pixels = 1;
    }
    for (int32_t i = 0; i < pixels; i++) {
        const uint32_t at = (uint32_t)i;
        const uint8_t *b = m->arena + (binary ? s->z + at * s->z_step * in : 0);
        fl_run_elements_at(m, op, &d, m->arena + s->x + at * s->x_step * in, b,
                           m->arena + s->y + at * s->y_step * out);
    }
}

void fl_run_tile(const fl_model_t *m, const fl_plan_step_t *s) {
    const fl_op_t *op = &m->ops[s->op];
    fl_tile_t t;
    fl_tile_of(m->tensors, op, s, &t);
    switch (op->opcode) {
    case FL_OP_CONV2D:
    case FL_OP_DEPTHWISE_CONV2D:
    case FL_OP_FULLY_CONNECTED:
        run_weighted(m, s, &t);
        break;
    case FL_OP_MAX_POOL:
    case FL_OP_AVG_POOL:
    case FL_OP_MEAN:
        run_pool(m, s, &t);
        break;
    case FL_OP_EMBEDDING:
        run_embedding(m, s, &t);
        break;
    default:
        run_elements(m, s, &t);
        break;
    }
}
