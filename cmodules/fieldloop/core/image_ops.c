// Operators: which tensors each takes, of which dtypes, with which clamp; what else must fit is in image_windows.c,
// image_elements.c and image_moves.c.
#include <string.h>

#include "core/image_checks.h"

enum {
    I8 = 1 << FL_I8,
    I32 = 1 << FL_I32,
    F32 = 1 << FL_F32,
    ANY = I8 | I32 | F32,
};

// What an opcode takes.
typedef struct {
    uint8_t needed, most;  // places of in[]: those before `needed` are taken, those from `most` on are empty
    uint8_t in, out;       // dtypes of in[0] and out[0], a bit each; where both are offered they are the same
    uint8_t constant;      // in[0] may be a constant
    uint8_t clamps;        // act_min, act_max mean something
    int (*check)(const fl_view_t *v, const fl_op_t *op);
} fl_signature_t;

static const fl_signature_t signatures[] = {
    [FL_OP_CONV2D] = {2, 4, I8 | F32, I8 | F32, 0, 1, fl_check_conv2d},
    [FL_OP_DEPTHWISE_CONV2D] = {2, 4, I8 | F32, I8 | F32, 0, 1, fl_check_depthwise},
    [FL_OP_FULLY_CONNECTED] = {2, 4, I8 | F32, I8 | F32, 0, 1, fl_check_fully_connected},
    [FL_OP_MAX_POOL] = {1, 1, I8 | F32, I8 | F32, 0, 1, fl_check_pool},
    [FL_OP_AVG_POOL] = {1, 1, I8 | F32, I8 | F32, 0, 1, fl_check_pool},
    [FL_OP_ADD] = {2, 2, I8 | F32, I8 | F32, 1, 1, fl_check_binary},
    [FL_OP_SOFTMAX] = {1, 1, I8 | F32, I8 | F32, 0, 0, fl_check_softmax},
    [FL_OP_RESHAPE] = {1, 1, ANY, ANY, 0, 0, fl_check_move},
    [FL_OP_SUB] = {2, 2, I8 | F32, I8 | F32, 1, 1, fl_check_binary},
    [FL_OP_MUL] = {2, 2, I8 | F32, I8 | F32, 1, 1, fl_check_binary},
    [FL_OP_MINIMUM] = {2, 2, I8 | F32, I8 | F32, 1, 1, fl_check_binary},
    [FL_OP_MAXIMUM] = {2, 2, I8 | F32, I8 | F32, 1, 1, fl_check_binary},
    [FL_OP_CONCAT] = {1, 4, ANY, ANY, 1, 0, fl_check_move},
    [FL_OP_PAD] = {1, 1, ANY, ANY, 0, 0, fl_check_move},
    [FL_OP_TRANSPOSE] = {1, 1, ANY, ANY, 0, 0, fl_check_move},
    [FL_OP_SLICE] = {1, 1, ANY, ANY, 0, 0, fl_check_move},
    [FL_OP_MEAN] = {1, 1, I8 | F32, I8 | F32, 0, 1, fl_check_mean},
    [FL_OP_TABLE] = {2, 2, I8, I8, 0, 0, fl_check_one_to_one},
    [FL_OP_EMBEDDING] = {2, 2, I8 | I32, ANY, 0, 0, fl_check_embedding},
    [FL_OP_QUANTIZE] = {1, 1, F32, I8, 0, 0, fl_check_one_to_one},
    [FL_OP_DEQUANTIZE] = {1, 1, I8, F32, 0, 0, fl_check_one_to_one},
    [FL_OP_UNARY] = {1, 1, F32, F32, 0, 0, fl_check_one_to_one},
};

static int check_tensors(const fl_view_t *v, const fl_op_t *op, const fl_signature_t *s) {
    for (uint32_t i = 0; i < 4; i++) {
        if (op->in[i] == FL_NO_TENSOR ? i < s->needed : (i >= s->most || op->in[i] >= v->tensor_count)) {
            return FL_EBADMSG;
        }
    }
    if (op->out[0] >= v->tensor_count || op->out[1] != FL_NO_TENSOR) {
        return FL_EBADMSG;
    }
    const fl_tensor_t *x = fl_tensor_of(v, op->in[0]);
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    if (!(s->in >> x->dtype & 1) || !(s->out >> y->dtype & 1) || (s->in == s->out && x->dtype != y->dtype)) {
        return FL_ENOTSUP;
    }
    if ((x->kind != FL_ACTIVATION && !s->constant) || y->kind != FL_ACTIVATION) {
        return FL_EBADMSG;
    }
    return FL_OK;
}

static int check_clamp(const fl_op_t *op, uint32_t dtype) {
    if (dtype == FL_F32) {
        float lo;
        float hi;
        memcpy(&lo, &op->act_min, sizeof lo);
        memcpy(&hi, &op->act_max, sizeof hi);
        return lo <= hi ? FL_OK : FL_EBADMSG;  // false for NaN
    }
    return op->act_min >= -128 && op->act_min <= op->act_max && op->act_max <= 127 ? FL_OK : FL_EBADMSG;
}

int fl_check_op(const fl_view_t *v, const fl_op_t *op) {
    if (op->opcode == 0 || op->opcode >= sizeof(signatures) / sizeof(signatures[0])) {
        return FL_ENOTSUP;
    }
    const fl_signature_t *s = &signatures[op->opcode];
    int err = check_tensors(v, op, s);
    if (err) {
        return err;
    }
    const uint32_t dtype = fl_tensor_of(v, op->in[0])->dtype;
    const int scales = fl_is_weighted(op->opcode) && dtype == FL_I8;
    if (op->flags & ~(uint32_t)(scales ? FL_OP_SINGLE_ROUNDING : 0)) {
        return FL_ENOTSUP;
    }
    if (s->clamps && check_clamp(op, dtype)) {
        return FL_EBADMSG;
    }
    if (!scales && (op->requant != 0 || op->requant_count != 0)) {
        return FL_EBADMSG;
    }
    return s->check(v, op);
}
