// Element by element: operators of two inputs, whose shapes broadcast against each other, and functions of one number.
#include "core/image.h"
#include "core/run.h"
#include "fieldloop/fl_kernels_f32.h"

// Steps of an input along the output's last four axes: shapes are aligned at their ends.
static void steps_of(const fl_tensor_t *t, int32_t step[4]) {
    int32_t distance = 1;
    for (int32_t i = 3, axis = t->ndim - 1; i >= 0; i--, axis--) {
        const int32_t n = axis >= 0 ? t->shape[axis] : 1;
        step[i] = n > 1 ? distance : 0;
        distance *= n;
    }
}

static fl_broadcast_t broadcast_of(const fl_tensor_t *a, const fl_tensor_t *b, const fl_tensor_t *y) {
    const uint32_t n = fl_elements(y);
    if (fl_elements(a) == n && fl_elements(b) == n) {
        return (fl_broadcast_t){{1, 1, 1, (int32_t)n}, {0, 0, 0, 1}, {0, 0, 0, 1}};
    }
    fl_broadcast_t d;
    for (int32_t i = 3, axis = y->ndim - 1; i >= 0; i--, axis--) {
        d.n[i] = axis >= 0 ? y->shape[axis] : 1;
    }
    steps_of(a, d.a);
    steps_of(b, d.b);
    return d;
}

static int is_flat(const fl_broadcast_t *d) {
    return d->n[0] == 1 && d->n[1] == 1 && d->n[2] == 1 && d->a[3] == 1 && d->b[3] == 1;
}

static void run_binary(const fl_model_t *m, const fl_op_t *op, const fl_broadcast_t *d, const int8_t *a, const int8_t *b,
                       int8_t *out) {
    const fl_add_quant_t q = {
        .a_zero = m->tensors[op->in[0]].zero_point,
        .b_zero = m->tensors[op->in[1]].zero_point,
        .out_zero = m->tensors[op->out[0]].zero_point,
        .act_min = op->act_min,
        .act_max = op->act_max,
    };
    switch (op->opcode) {
    case FL_OP_ADD:
        if (is_flat(d)) {
            fl_add(&op->p.add, &q, d->n[3], a, b, out);
        } else {
            fl_add_broadcast(&op->p.add, &q, d, a, b, out);
        }
        break;
    case FL_OP_SUB:
        fl_sub(&op->p.add, &q, d, a, b, out);
        break;
    case FL_OP_MUL:
        fl_mul(&op->p.mul, &q, d, a, b, out);
        break;
    case FL_OP_MINIMUM:
        fl_minimum(op->act_min, op->act_max, d, a, b, out);
        break;
    default:
        fl_maximum(op->act_min, op->act_max, d, a, b, out);
        break;
    }
}

void fl_run_elements_at(const fl_model_t *m, const fl_op_t *op, const fl_broadcast_t *d, const void *a, const void *b,
                        void *out) {
    const fl_tensor_t *x = &m->tensors[op->in[0]];
    const fl_tensor_t *y = &m->tensors[op->out[0]];
    const int32_t n = d->n[3];
    switch (op->opcode) {
    case FL_OP_TABLE:
        fl_table(fl_model_tensor(m, op->in[1]), n, a, out);
        break;
    case FL_OP_QUANTIZE:
        fl_affine_quantize(y->scale, y->zero_point, n, a, out);
        break;
    case FL_OP_DEQUANTIZE:
        fl_affine_dequantize(x->scale, x->zero_point, n, a, out);
        break;
    case FL_OP_UNARY:
        fl_unary_f32(&op->p.unary, n, a, out);
        break;
    default:
        if (x->dtype == FL_F32) {
            fl_binary_f32(op->opcode, fl_float_of(op->act_min), fl_float_of(op->act_max), d, a, b, out);
        } else {
            run_binary(m, op, d, a, b, out);
        }
        break;
    }
}

void fl_run_elements(const fl_model_t *m, const fl_op_t *op) {
    const uint32_t second = op->in[fl_is_binary(op->opcode)];
    const fl_broadcast_t d = broadcast_of(&m->tensors[op->in[0]], &m->tensors[second], &m->tensors[op->out[0]]);
    fl_run_elements_at(m, op, &d, fl_model_tensor(m, op->in[0]), fl_model_tensor(m, second), fl_run_out(m, op));
}
