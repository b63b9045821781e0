// Steps of a tiled plan: that none leaves the arena, the maps of its operator, or the weights, in any iteration of the
// loop around it. Every field that a loop advances is linear, so the first and the last iteration speak for all.
#include "core/image_checks.h"
#include "core/tiles.h"

enum {
    MAX_STEPS = 0xffff,
    KNOWN_FLAGS = FL_STEP_PARTIAL | FL_STEP_FIRST | FL_STEP_LAST | FL_STEP_TURNED,
};

// Bytes of the arena, from the first that is used to the end of the last.
typedef struct {
    uint32_t from, end;
} span_t;

// False where it leaves the arena; what lies in it counts towards the plan's highest end.
static int take(fl_places_t *a, uint32_t from, uint64_t bytes, span_t *span) {
    if (bytes > a->plan->arena_bytes || from > a->plan->arena_bytes - bytes) {
        return 0;
    }
    *span = (span_t){from, from + (uint32_t)bytes};
    a->highest = span->end > a->highest ? span->end : a->highest;
    return 1;
}

static int take_piece(fl_places_t *a, uint32_t at, uint32_t pixels, uint32_t step, uint32_t channels, uint32_t size,
                      span_t *span) {
    return step >= channels && at % size == 0 &&
           take(a, at, ((uint64_t)(pixels - 1) * step + channels) * size, span);
}

static int meet(span_t a, span_t b) {
    return a.from < b.end && b.from < a.end;
}

static int is_inside(uint32_t from, uint32_t count, int32_t all) {
    return count > 0 && from + count <= (uint32_t)all;
}

static int same_rows(const fl_plan_step_t *s) {
    return s->x_row == s->row && s->x_rows == s->rows;
}

static int same_channels(const fl_plan_step_t *s) {
    return s->x_channel == s->channel && s->x_channels == s->channels;
}

// Exactly the rows that the box needs: what is left of the padding follows from them. The whole window fits 32 bits.
static int has_its_rows(const fl_conv_params_t *p, const fl_map_dims_t *d, const fl_plan_step_t *s) {
    const int32_t from = s->row * p->stride_h - p->pad_top;
    const int32_t end = from + (s->rows - 1) * p->stride_h + (p->kernel_h - 1) * p->dilation_h + 1;
    const int32_t first = from > 0 ? from : 0;
    return s->x_row == first && first + s->x_rows == (end < d->in_h ? end : d->in_h);
}

// A mean over every axis but the last.
static int keeps_channels(const fl_tensor_t *x, uint32_t axes) {
    for (uint32_t i = 0; i + 1 < x->ndim; i++) {
        if (!(axes >> i & 1u) && x->shape[i] != 1) {
            return 0;
        }
    }
    return !(axes >> (x->ndim - 1) & 1u);
}

// That the box's operator can be computed in such boxes, from what the step reads.
static int check_kind(const fl_view_t *v, const fl_op_t *op, const fl_plan_step_t *s, const fl_map_dims_t *d) {
    const fl_tensor_t *x = fl_tensor_of(v, op->in[0]);
    fl_conv_params_t p;
    fl_step_window(op, s, &p);
    const int partial = (s->flags & FL_STEP_PARTIAL) != 0;
    switch (op->opcode) {
    case FL_OP_CONV2D:
        return p.groups <= 1 && has_its_rows(&p, d, s) && (partial || s->x_channels == d->in_c);
    case FL_OP_DEPTHWISE_CONV2D:
        if (partial || !has_its_rows(&p, d, s)) {
            return 0;
        }
        return d->in_c == 1 ||  // all channels read the only one
               ((uint32_t)s->x_channel * p.depth_multiplier == s->channel &&
                (uint32_t)s->x_channels * p.depth_multiplier == s->channels);
    case FL_OP_FULLY_CONNECTED:
        return partial || (same_rows(s) && s->x_channels == d->in_c);
    case FL_OP_MAX_POOL:
        return !partial && has_its_rows(&p, d, s) && same_channels(s);
    case FL_OP_AVG_POOL:
        if (partial) {  // one window, all of it on the map
            return d->out_h == 1 && d->out_w == 1 && p.pad_top == 0 && p.pad_left == 0 && p.kernel_w <= d->in_w &&
                   p.kernel_h <= d->in_h && s->x_row + s->x_rows <= p.kernel_h && same_channels(s);
        }
        return has_its_rows(&p, d, s) && same_channels(s);
    case FL_OP_MEAN:
        return partial && keeps_channels(x, op->p.mean.axes) && same_channels(s);
    case FL_OP_EMBEDDING:
        return !partial && same_rows(s);
    default:
        if (fl_is_binary(op->opcode)) {
            const fl_tensor_t *b = fl_tensor_of(v, op->in[1]);
            if (b->kind != FL_ACTIVATION || !fl_same_shape(x, b)) {
                return 0;
            }
        }
        return !partial && same_rows(s) && same_channels(s);
    }
}

// Weights of a window that is turned lie as before only where it has one row or one column.
static int can_turn(const fl_op_t *op) {
    switch (op->opcode) {
    case FL_OP_FULLY_CONNECTED:
    case FL_OP_EMBEDDING:
        return 0;
    case FL_OP_CONV2D:
    case FL_OP_DEPTHWISE_CONV2D:
        return op->p.conv.kernel_h == 1 || op->p.conv.kernel_w == 1;
    default:
        return 1;
    }
}

static int is_tileable(uint32_t opcode) {
    return opcode != FL_OP_SOFTMAX && !fl_is_move(opcode);
}

static int check_pieces(const fl_view_t *v, fl_places_t *a, const fl_op_t *op, const fl_plan_step_t *s,
                        const fl_map_dims_t *d) {
    const uint32_t in = fl_dtype_bytes(fl_tensor_of(v, op->in[0])->dtype);
    const uint32_t out = fl_dtype_bytes(fl_tensor_of(v, op->out[0])->dtype);
    const uint32_t x_pixels = s->x_rows * (uint32_t)d->in_w;
    const uint32_t pixels = s->rows * (uint32_t)d->out_w;
    span_t x;
    span_t y;
    span_t z;
    if (!take_piece(a, s->x, x_pixels, s->x_step, s->x_channels, in, &x)) {
        return 0;
    }
    if (s->flags & FL_STEP_PARTIAL) {
        if (!take_piece(a, s->y, pixels, s->channels, s->channels, sizeof(int32_t), &y) || meet(x, y)) {
            return 0;
        }
        if (!(s->flags & FL_STEP_LAST)) {
            return 1;
        }
        // elements on the accumulators they come from never get ahead of them
        const int stays = s->z == s->y && s->z_step * out <= s->channels * sizeof(int32_t);
        return take_piece(a, s->z, pixels, s->z_step, s->channels, out, &z) && !meet(x, z) && (stays || !meet(y, z));
    }
    if (!take_piece(a, s->y, pixels, s->y_step, s->channels, out, &y)) {
        return 0;
    }
    const int binary = fl_is_binary(op->opcode);
    const int in_place = binary || op->opcode == FL_OP_TABLE || op->opcode == FL_OP_UNARY;
    if (meet(x, y) && !(in_place && s->x == s->y && s->x_step == s->y_step)) {
        return 0;
    }
    return !binary || (take_piece(a, s->z, pixels, s->z_step, s->channels, in, &z) &&
                       (!meet(y, z) || (s->z == s->y && s->z_step == s->y_step)));
}

static int check_tile(const fl_view_t *v, fl_places_t *a, const fl_plan_step_t *s) {
    const fl_op_t *op = &v->ops[s->op];
    fl_map_dims_t d;
    if (!is_tileable(op->opcode) || (s->flags & ~(uint32_t)KNOWN_FLAGS)) {
        return FL_ENOTSUP;
    }
    const int sound = fl_tensor_of(v, op->in[0])->kind == FL_ACTIVATION &&
                      (!(s->flags & FL_STEP_TURNED) || can_turn(op)) &&
                      ((s->flags & FL_STEP_PARTIAL) || !(s->flags & (FL_STEP_FIRST | FL_STEP_LAST))) &&
                      fl_step_maps(v->tensors, op, s, &d) && is_inside(s->row, s->rows, d.out_h) &&
                      is_inside(s->channel, s->channels, d.out_c) && is_inside(s->x_row, s->x_rows, d.in_h) &&
                      is_inside(s->x_channel, s->x_channels, d.in_c) && check_kind(v, op, s, &d) &&
                      check_pieces(v, a, op, s, &d);
    return sound ? FL_OK : FL_EBADMSG;
}

static int check_copy(fl_places_t *a, const fl_plan_step_t *s) {
    span_t span;
    return take(a, s->x, s->z, &span) && take(a, s->y, s->z, &span) ? FL_OK : FL_EBADMSG;
}

static int check_once(const fl_view_t *v, fl_places_t *a, const fl_plan_step_t *s) {
    if (s->op >= v->op_count) {
        return FL_EBADMSG;
    }
    if (s->kind == FL_STEP_TILE) {
        return check_tile(v, a, s);
    }
    if (s->flags != 0) {
        return FL_ENOTSUP;
    }
    return s->kind == FL_STEP_COPY ? check_copy(a, s) : fl_check_whole(v, a, &v->ops[s->op], 1);
}

// False where a field runs over on its way.
static int arrives(uint32_t from, uint32_t to, int32_t more, uint32_t times) {
    return (int64_t)more * (times - 1) == (int64_t)to - from;
}

// Windows keep pace with their rows, and elements stay aligned: what is in order at both ends then is so between them.
static int keeps_order(const fl_view_t *v, const fl_plan_step_t *s) {
    const fl_op_t *op = &v->ops[s->op];
    const uint32_t in = fl_dtype_bytes(fl_tensor_of(v, op->in[0])->dtype);
    const uint32_t out = fl_dtype_bytes(fl_tensor_of(v, op->out[0])->dtype);
    const int partial = (s->flags & FL_STEP_PARTIAL) != 0;
    const int is_window = op->opcode == FL_OP_CONV2D || op->opcode == FL_OP_DEPTHWISE_CONV2D ||
                          op->opcode == FL_OP_MAX_POOL || (op->opcode == FL_OP_AVG_POOL && !partial);
    fl_conv_params_t p;
    fl_step_window(op, s, &p);
    if (is_window && s->x_row_more != s->row_more * p.stride_h) {
        return 0;
    }
    return (uint32_t)s->x_more % in == 0 && (uint32_t)s->y_more % (partial ? sizeof(int32_t) : out) == 0 &&
           (uint32_t)s->z_more % (partial ? out : in) == 0;
}

// The iteration after which two places have passed each other; 0: they never do.
static uint32_t passing(uint32_t a, int32_t a_more, uint32_t b, int32_t b_more) {
    const int32_t apart = (int32_t)(a - b);
    const int32_t closer = b_more - a_more;
    return closer != 0 && (apart < 0) == (closer < 0) ? (uint32_t)(apart / closer) : 0;
}

// All iterations: no field runs over, both ends are in order, and so are the places where pieces pass each other.
static int check_iterations(const fl_view_t *v, fl_places_t *a, const fl_plan_step_t *s, uint32_t times) {
    fl_plan_step_t last;
    fl_step_at(s, times - 1, &last);
    if (!arrives(s->row, last.row, s->row_more, times) ||
        !arrives(s->channel, last.channel, s->channel_more, times) ||
        !arrives(s->x_row, last.x_row, s->x_row_more, times) ||
        !arrives(s->x_channel, last.x_channel, s->x_channel_more, times) ||
        !arrives(s->x, last.x, s->x_more, times) || !arrives(s->y, last.y, s->y_more, times) ||
        !arrives(s->z, last.z, s->z_more, times)) {
        return FL_EBADMSG;
    }
    int err = check_once(v, a, &last);
    if (err || s->kind != FL_STEP_TILE || times <= 2) {
        return err;
    }
    if (!keeps_order(v, s)) {
        return FL_EBADMSG;
    }
    const int third = fl_is_binary(v->ops[s->op].opcode) || (s->flags & FL_STEP_LAST);
    const uint32_t passes[3] = {
        passing(s->x, s->x_more, s->y, s->y_more),
        third ? passing(s->y, s->y_more, s->z, s->z_more) : 0,
        third ? passing(s->x, s->x_more, s->z, s->z_more) : 0,
    };
    for (uint32_t i = 0; !err && i < 9; i++) {
        const uint32_t at = passes[i / 3] + i % 3 - 1;  // and on both sides: the same place may be in order
        if (at < times) {
            fl_plan_step_t now;
            fl_step_at(s, at, &now);
            err = check_once(v, a, &now);
        }
    }
    return err;
}

int fl_check_tiles(const fl_view_t *v, fl_places_t *a, const fl_section_t *section) {
    const fl_tiles_t *tiles = (const fl_tiles_t *)fl_at(v, section->offset);
    const uint32_t count = tiles->count;
    if (count == 0 || section->bytes != sizeof(*tiles) + (uint64_t)count * sizeof(fl_plan_step_t)) {
        return FL_EBADMSG;
    }
    if (count > MAX_STEPS) {
        return FL_ENOTSUP;
    }
    const fl_plan_step_t *s = fl_steps_of(tiles);
    uint32_t left = 0;  // steps of the loop that is open
    uint32_t times = 1;
    for (uint32_t i = 0; i < count; i++, s++) {
        if (s->kind > FL_STEP_LOOP) {
            return FL_ENOTSUP;
        }
        if (s->kind == FL_STEP_LOOP) {
            if (left > 0 || s->op == 0 || s->op > count - 1 - i || s->rows == 0) {
                return FL_EBADMSG;
            }
            if (s->flags != 0) {
                return FL_ENOTSUP;
            }
            left = s->op;
            times = s->rows;
            continue;
        }
        int err = check_once(v, a, s);
        if (!err && left > 0) {
            left--;
            err = check_iterations(v, a, s, times);
        }
        if (err) {
            return err;
        }
    }
    return FL_OK;
}
