// The way back, worked out once: which operators it passes, which delta each reads and makes, and where those lie.
//
// Walked is every operator whose output has a delta and that is trained, or leads on to one that is. Step i of the way is the
// i-th of them in descending order, so that every consumer of a tensor comes before the operator that made it. A delta is
// born with the first of its tensor's consumers (the output's before all), and dies with the operator that made its tensor.
#include <string.h>

#include "core/image.h"
#include "fieldloop/fl_error.h"
#include "learner.h"

enum {
    MAX_DELTA_WORDS = 1 << 22,   // of all deltas: far above any microcontroller, and placing them ends soon
    MAX_Q_ENTRIES = 65535,       // of a delta of 16 bits that is summed: |sum| stays below 2^31
    MAX_Q_OUTPUTS = 1 << 22,     // of a convolution: so that fl_q_headroom finds a shift
    MAX_MAP = 65535,             // rows and columns of a spot
};

// Operators that are trained or lead on to one that is, a bit each.
typedef struct {
    uint32_t bits[FL_MAX_OPS / 32];
} fl_op_set_t;

static int has(const fl_op_set_t *s, int32_t op) {
    return op >= 0 && (s->bits[(uint32_t)op / 32] >> ((uint32_t)op % 32) & 1u);
}

int32_t fl_learner_producer(const fl_model_t *m, uint32_t t, uint32_t before) {
    while (before-- > 0) {
        if (m->ops[before].out[0] == t) {
            return (int32_t)before;
        }
    }
    return -1;
}

static void find_leading(const fl_model_t *m, uint32_t last_op, const fl_trainable_t *trained, uint32_t count,
                         fl_op_set_t *set) {
    memset(set, 0, sizeof *set);
    uint32_t next = 0;
    for (uint32_t i = trained[0].op; i <= last_op; i++) {
        const fl_op_t *op = &m->ops[i];
        int leads = next < count && trained[next].op == i;
        next += (uint32_t)leads;
        for (uint32_t j = 0; !leads && j < fl_op_places(op); j++) {
            uint32_t t = fl_op_input(op, j);
            if (t != FL_NO_TENSOR && m->tensors[t].kind == FL_ACTIVATION) {
                leads = has(set, fl_learner_producer(m, t, i));
            }
        }
        if (leads) {
            set->bits[i / 32] |= 1u << (i % 32);
        }
    }
}

static int is_pool(const fl_op_t *op) {
    return op->opcode == FL_OP_MAX_POOL || op->opcode == FL_OP_AVG_POOL;
}

static int is_convolution(const fl_op_t *op) {
    return op->opcode == FL_OP_CONV2D || op->opcode == FL_OP_DEPTHWISE_CONV2D;
}

int fl_learner_masks(const fl_model_t *m, const fl_learner_t *l, uint32_t at) {
    const fl_op_t *op = &m->ops[l->way[at].op];
    return at > 0 && op->opcode != FL_OP_RESHAPE && !(is_pool(op) && op->act_min == INT8_MIN && op->act_max == INT8_MAX);
}

static uint32_t inputs_of(const fl_op_t *op) {
    return op->opcode == FL_OP_ADD ? 2 : 1;
}

// The backward kernels see one int8 sample, one group, and weights without a zero point.
static int has_way_back(const fl_model_t *m, const fl_op_t *op) {
    const fl_tensor_t *x = &m->tensors[op->in[0]];
    const fl_tensor_t *y = &m->tensors[op->out[0]];
    if (x->dtype != FL_I8 || y->dtype != FL_I8 || (fl_has_weights(op) && m->tensors[op->in[1]].zero_point != 0) ||
        (op->opcode == FL_OP_CONV2D && op->p.conv.groups > 1)) {
        return 0;
    }
    switch (op->opcode) {
    case FL_OP_RESHAPE:
        return 1;
    case FL_OP_FULLY_CONNECTED:
        return fl_elements(x) == (uint32_t)m->tensors[op->in[1]].shape[1];
    case FL_OP_CONV2D:
    case FL_OP_DEPTHWISE_CONV2D:
    case FL_OP_MAX_POOL:
    case FL_OP_AVG_POOL:
        return x->shape[0] == 1 && y->shape[1] <= MAX_MAP && y->shape[2] <= MAX_MAP && x->shape[1] <= MAX_MAP &&
               x->shape[2] <= MAX_MAP;
    case FL_OP_ADD:  // nothing is broadcast where both inputs are as large as the output
        return op->in[0] != op->in[1] && fl_elements(x) == fl_elements(y) &&
               fl_elements(&m->tensors[op->in[1]]) == fl_elements(y);
    default:
        return 0;
    }
}

// How many operators on the way want a delta of tensor `t`.
static uint32_t readers(const fl_model_t *m, const fl_learner_t *l, uint32_t t) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < l->way_count; i++) {
        const fl_op_t *op = &m->ops[l->way[i].op];
        for (uint32_t j = 0; j < inputs_of(op); j++) {
            count += op->in[j] == t;
        }
    }
    return count;
}

static int list_operators(const fl_model_t *m, const fl_op_set_t *leading, const fl_trainable_t *trained, uint32_t count,
                          fl_learner_t *l) {
    for (int32_t i = (int32_t)l->last_op; i >= (int32_t)trained[0].op; i--) {
        const fl_op_t *op = &m->ops[i];
        if (!has(leading, i) || (i != (int32_t)l->last_op && readers(m, l, op->out[0]) == 0)) {
            continue;
        }
        if (l->way_count == FL_MAX_WAY || !has_way_back(m, op)) {
            return FL_ENOTSUP;
        }
        fl_hop_t *step = &l->way[l->way_count++];
        *step = (fl_hop_t){(uint16_t)i, FL_NONE, FL_NONE, FL_NONE, {FL_NONE, FL_NONE}, 0};
        if (l->layer_count < count && trained[count - 1 - l->layer_count].op == (uint32_t)i) {
            step->layer = (uint8_t)l->layer_count++;
        }
    }
    return l->layer_count == count ? FL_OK : FL_ENOTSUP;  // a trained layer that does not lead to the logits
}

// A pool whose windows do not overlap, behind a convolution that nobody else reads: its delta is never spread out.
static int is_fused(const fl_model_t *m, const fl_learner_t *l, const fl_op_t *op, int32_t producer) {
    const fl_conv_params_t *p = &op->p.conv;
    return is_pool(op) && p->stride_h >= p->kernel_h && p->stride_w >= p->kernel_w &&
           is_convolution(&m->ops[producer]) && readers(m, l, op->in[0]) == 1;
}

// ---- deltas

// While the way is worked out: whose each delta is, and from which moment to which it lives. Moment 0 is before step 0.
typedef struct {
    uint32_t tensor[FL_MAX_DELTAS];
    uint8_t born[FL_MAX_DELTAS], dies[FL_MAX_DELTAS];
} fl_lives_t;

static uint8_t delta_of(const fl_learner_t *l, const fl_lives_t *lives, uint32_t tensor) {
    for (uint32_t i = 0; i < l->delta_count; i++) {
        if (lives->tensor[i] == tensor) {
            return (uint8_t)i;
        }
    }
    return FL_NONE;
}

// At most one a step, so that there is always room.
static uint8_t bear(fl_learner_t *l, fl_lives_t *lives, uint32_t tensor, uint32_t words, uint32_t moment) {
    uint32_t i = l->delta_count++;
    l->delta[i].words = words;
    lives->tensor[i] = tensor;
    lives->born[i] = lives->dies[i] = (uint8_t)moment;
    return (uint8_t)i;
}

// The delta of the step's output becomes that of `tensor`, or is added to the one that is there.
static uint8_t hand_on(const fl_learner_t *l, fl_lives_t *lives, fl_hop_t *step, uint32_t place, uint32_t tensor) {
    uint8_t there = delta_of(l, lives, tensor);
    if (there != FL_NONE) {
        step->flags |= (uint8_t)(FL_WAY_ADDS << place);
        return there;
    }
    lives->tensor[step->delta] = tensor;
    return step->delta;
}

static void link_step(const fl_model_t *m, const fl_op_set_t *leading, uint32_t at, fl_learner_t *l, fl_lives_t *lives) {
    fl_hop_t *step = &l->way[at];
    const fl_op_t *op = &m->ops[step->op];
    uint32_t moment = at + 1;
    int32_t from[2] = {-1, -1};  // what made the inputs that get a delta
    for (uint32_t i = 0; i < inputs_of(op); i++) {
        int32_t producer = fl_learner_producer(m, op->in[i], step->op);
        from[i] = m->tensors[op->in[i]].kind == FL_ACTIVATION && has(leading, producer) ? producer : -1;
    }
    step->delta = delta_of(l, lives, op->out[0]);
    lives->tensor[step->delta] = FL_NO_TENSOR;
    lives->dies[step->delta] = (uint8_t)moment;
    for (uint32_t i = 0; is_convolution(op) && i < at; i++) {
        if ((l->way[i].flags & FL_WAY_FUSED) && m->ops[l->way[i].op].in[0] == op->out[0]) {
            step->pool = (uint8_t)i;
        }
    }
    uint32_t first = from[1] > from[0];
    if (from[first] < 0) {
        return;
    }
    uint32_t tensor = op->in[first];
    if (op->opcode == FL_OP_ADD && from[1 - first] >= 0) {
        // the one that is needed first gets a copy, the other one goes on with what is there
        step->to[0] = delta_of(l, lives, tensor);
        if (step->to[0] == FL_NONE) {
            step->to[0] = bear(l, lives, tensor, l->delta[step->delta].words, moment);
        } else {
            step->flags |= FL_WAY_ADDS;
        }
        step->to[1] = hand_on(l, lives, step, 1, op->in[1 - first]);
        return;
    }
    if (is_fused(m, l, op, from[0])) {
        step->flags |= FL_WAY_FUSED;
    }
    if ((step->flags & FL_WAY_FUSED) || op->opcode == FL_OP_ADD || op->opcode == FL_OP_RESHAPE) {
        step->to[0] = hand_on(l, lives, step, 0, tensor);
        return;
    }
    uint32_t words = fl_elements(&m->tensors[tensor]);
    step->to[0] = delta_of(l, lives, tensor);
    if (step->to[0] == FL_NONE) {
        step->to[0] = bear(l, lives, tensor, words, moment);
        return;
    }
    step->flags |= FL_WAY_ADDS;
    if (l->config.deltas == FL_DELTAS_INT16) {
        step->to[1] = bear(l, lives, FL_NO_TENSOR, words, moment);  // what is added is made apart: its exponent is its own
    }
}

// ---- where they lie

static int meet(const fl_lives_t *lives, uint32_t a, uint32_t b) {
    return lives->born[a] <= lives->dies[b] && lives->born[b] <= lives->dies[a];
}

// Puts delta `i` as low or as high as it goes in `room` words, clear of those before it that live when it does.
static int place_one(fl_learner_t *l, const fl_lives_t *lives, uint32_t i, uint32_t room) {
    uint32_t words = l->delta[i].words;
    int is_low = i % 2 == 0;
    int64_t at = is_low ? 0 : (int64_t)room - words;
    int moved;
    do {
        moved = 0;
        for (uint32_t j = 0; j < i; j++) {
            int64_t start = l->delta[j].at;
            int64_t end = start + l->delta[j].words;
            if (meet(lives, i, j) && start < at + words && at < end) {
                at = is_low ? end : start - words;
                moved = 1;
            }
        }
    } while (moved);
    l->delta[i].at = (uint32_t)at;
    return at >= 0 && at + words <= room;
}

static int place_deltas(fl_learner_t *l, const fl_lives_t *lives) {
    uint64_t room = 0;
    for (uint32_t moment = 0; moment <= l->way_count; moment++) {
        uint64_t live = 0;
        for (uint32_t i = 0; i < l->delta_count; i++) {
            live += lives->born[i] <= moment && moment <= lives->dies[i] ? l->delta[i].words : 0;
        }
        room = live > room ? live : room;
    }
    for (; room <= MAX_DELTA_WORDS; room += 16) {
        uint32_t placed = 0;
        while (placed < l->delta_count && place_one(l, lives, placed, (uint32_t)room)) {
            placed++;
        }
        if (placed == l->delta_count) {
            l->delta_words = (uint32_t)room;
            return FL_OK;
        }
    }
    return FL_ENOTSUP;
}

// ---- limits

// Largest factor by which the L1 norm of a delta can grow on its way through a layer's weights.
static float growth(const fl_model_t *m, const fl_op_t *op) {
    fl_row_scales_t scales = fl_weight_scales(m, op);
    uint32_t distinct = scales.stride ? fl_output_channels(m, op) : 1;
    float largest = 0.0f;
    for (uint32_t i = 0; i < distinct; i++) {
        largest = scales.scale[i] > largest ? scales.scale[i] : largest;
    }
    return largest * 128.0f * (float)fl_row_bytes(m, op);
}

// No delta may leave the range in which the kernels work: `limit` for its L1 norm, and for 16 bits what an int32 sum holds.
static int check_ranges(const fl_model_t *m, const fl_learner_t *l, float limit) {
    float norm[FL_MAX_DELTAS];
    norm[0] = 2.0f;
    for (uint32_t at = 0; at < l->way_count; at++) {
        const fl_hop_t *step = &l->way[at];
        const fl_op_t *op = &m->ops[step->op];
        if (l->config.deltas == FL_DELTAS_INT16 && (fl_has_weights(op) || is_pool(op)) &&
            (l->delta[step->delta].words > MAX_Q_ENTRIES || fl_elements(&m->tensors[op->out[0]]) > MAX_Q_OUTPUTS)) {
            return FL_ENOTSUP;
        }
        float here = norm[step->delta];
        for (uint32_t i = 0; i < inputs_of(op) && step->to[i] != FL_NONE; i++) {
            float handed = fl_has_weights(op) ? here * growth(m, op) : here;
            if (step->flags & FL_WAY_ADDS << i) {
                handed = norm[step->to[i]] + handed;
            }
            if (!(handed < limit)) {
                return FL_ENOTSUP;
            }
            norm[step->to[i]] = handed;
        }
    }
    return FL_OK;
}

int fl_learner_way(const fl_model_t *m, fl_learner_t *l, const fl_trainable_t *trained, uint32_t count, float limit) {
    fl_op_set_t leading;
    find_leading(m, l->last_op, trained, count, &leading);
    int err = list_operators(m, &leading, trained, count, l);
    if (err) {
        return err;
    }
    fl_lives_t lives;
    bear(l, &lives, m->ops[l->last_op].out[0], l->classes, 0);
    for (uint32_t at = 0; at < l->way_count; at++) {
        link_step(m, &leading, at, l, &lives);
    }
    err = place_deltas(l, &lives);
    return err ? err : check_ranges(m, l, limit);
}

void fl_learner_prune(const fl_model_t *m, fl_learner_t *l) {
    uint8_t is_wanted[FL_MAX_DELTAS] = {0};
    for (uint32_t at = l->way_count; at-- > 0;) {
        fl_hop_t *step = &l->way[at];
        uint32_t inputs = inputs_of(&m->ops[step->op]);
        int leads = step->layer != FL_NONE && !fl_is_frozen(l, &l->layers[step->layer]);
        for (uint32_t i = 0; i < inputs; i++) {
            if (step->to[i] != FL_NONE && !is_wanted[step->to[i]]) {
                step->to[i] = FL_NONE;
            }
            leads |= step->to[i] != FL_NONE;
        }
        is_wanted[step->delta] = (uint8_t)leads;
        step->flags |= leads ? 0 : FL_WAY_IDLE;
    }
}
