// What a step of a tiled plan sees of its operator, and what all of them take.
#include "core/tiles.h"

#include "core/image.h"
#include "core/run.h"
#include "fieldloop/fl_error.h"

typedef struct {
    int32_t rows, width, channels;
} map_t;

static map_t map_of(const fl_tensor_t *t, uint32_t turned) {
    const int32_t *n = t->shape;  // unused axes are 1
    switch (t->ndim) {
    case 1:
        return (map_t){1, 1, n[0]};
    case 2:
        return (map_t){n[0], 1, n[1]};
    case 3:
        return n[0] == 1 ? (map_t){n[1], 1, n[2]} : (map_t){n[0], n[1], n[2]};
    default:
        return turned ? (map_t){n[2], 1, n[3]} : (map_t){n[1], n[2], n[3]};
    }
}

// One sample; to be turned, one row too.
static int is_map(const fl_tensor_t *t, uint32_t turned) {
    return turned ? t->ndim == 4 && t->shape[0] == 1 && t->shape[1] == 1 : t->ndim < 4 || t->shape[0] == 1;
}

int fl_step_maps(const fl_tensor_t *tensors, const fl_op_t *op, const fl_plan_step_t *s, fl_map_dims_t *d) {
    const fl_tensor_t *x = &tensors[op->in[0]];
    const fl_tensor_t *y = &tensors[op->out[0]];
    const uint32_t turned = s->flags & FL_STEP_TURNED;
    map_t in;
    map_t out;
    if (op->opcode == FL_OP_FULLY_CONNECTED) {
        const fl_tensor_t *w = &tensors[op->in[1]];
        const int32_t cols = w->shape[1];
        const int32_t samples = (int32_t)fl_elements(x) / cols;
        in = (map_t){samples, 1, cols};
        out = (map_t){samples, 1, w->shape[0]};
        if (s->flags & FL_STEP_PARTIAL) {
            const uint32_t pixels = (uint32_t)s->map_h * s->map_w;
            if (samples != 1 || pixels == 0 || (uint32_t)cols % pixels != 0) {
                return 0;
            }
            in = (map_t){s->map_h, s->map_w, (int32_t)((uint32_t)cols / pixels)};
        }
    } else if (op->opcode == FL_OP_EMBEDDING) {
        const int32_t n = (int32_t)fl_elements(x);
        in = (map_t){n, 1, 1};
        out = (map_t){n, 1, (int32_t)fl_elements(y) / n};
    } else {
        if (!is_map(x, turned) || (op->opcode != FL_OP_MEAN && !is_map(y, turned))) {
            return 0;
        }
        in = map_of(x, turned);
        out = op->opcode == FL_OP_MEAN ? (map_t){1, 1, in.channels} : map_of(y, turned);
    }
    d->in_h = in.rows;
    d->in_w = in.width;
    d->in_c = in.channels;
    d->out_h = out.rows;
    d->out_w = out.width;
    d->out_c = out.channels;
    d->x_step = d->y_step = d->w_step = 0;
    return 1;
}

void fl_step_window(const fl_op_t *op, const fl_plan_step_t *s, fl_conv_params_t *p) {
    // field by field, here and below: a small C library clears and copies structures byte by byte
    p->groups = 1;
    p->depth_multiplier = 1;
    if (op->opcode == FL_OP_FULLY_CONNECTED) {
        const int partial = (s->flags & FL_STEP_PARTIAL) != 0;
        p->kernel_h = partial ? s->x_rows : 1;
        p->kernel_w = partial ? s->map_w : 1;
        p->stride_h = p->stride_w = 1;
        p->dilation_h = p->dilation_w = 1;
        p->pad_top = p->pad_left = 0;
        return;
    }
    const fl_conv_params_t *o = &op->p.conv;
    const int turned = (s->flags & FL_STEP_TURNED) != 0;
    p->kernel_h = turned ? o->kernel_w : o->kernel_h;
    p->kernel_w = turned ? o->kernel_h : o->kernel_w;
    p->stride_h = turned ? o->stride_w : o->stride_h;
    p->stride_w = turned ? o->stride_h : o->stride_w;
    p->dilation_h = turned ? o->dilation_w : o->dilation_h;
    p->dilation_w = turned ? o->dilation_h : o->dilation_w;
    p->pad_top = turned ? o->pad_left : o->pad_top;
    p->pad_left = turned ? o->pad_top : o->pad_left;
    p->depth_multiplier = o->depth_multiplier;
    p->groups = o->groups;
}

void fl_tile_of(const fl_tensor_t *tensors, const fl_op_t *op, const fl_plan_step_t *s, fl_tile_t *t) {
    fl_step_window(op, s, &t->p);
    fl_step_maps(tensors, op, s, &t->whole);
    if (op->opcode != FL_OP_FULLY_CONNECTED) {
        const uint32_t pad = (uint32_t)(int32_t)t->p.pad_top + s->x_row - (uint32_t)s->row * t->p.stride_h;
        t->p.pad_top = (int16_t)(uint16_t)pad;
    }
    t->d.in_h = s->x_rows;
    t->d.in_w = t->whole.in_w;
    t->d.in_c = s->x_channels;
    t->d.out_h = s->rows;
    t->d.out_w = t->whole.out_w;
    t->d.out_c = s->channels;
    t->d.x_step = s->x_step;
    t->d.y_step = s->y_step;
    t->d.w_step = t->whole.out_c;
    if (op->opcode == FL_OP_DEPTHWISE_CONV2D && t->whole.in_c == 1) {
        t->p.depth_multiplier = s->channels;
    }
}

static uint16_t ahead(uint32_t from, int32_t more, uint32_t i) {
    return (uint16_t)(from + i * (uint32_t)more);
}

void fl_step_at(const fl_plan_step_t *s, uint32_t i, fl_plan_step_t *at) {
    *at = *s;
    at->row = ahead(s->row, s->row_more, i);
    at->channel = ahead(s->channel, s->channel_more, i);
    at->x_row = ahead(s->x_row, s->x_row_more, i);
    at->x_channel = ahead(s->x_channel, s->x_channel_more, i);
    at->x += i * (uint32_t)s->x_more;
    at->y += i * (uint32_t)s->y_more;
    at->z += i * (uint32_t)s->z_more;
}

const fl_tiles_t *fl_find_tiles(const void *image, uint32_t kind) {
    uint32_t from = 0;
    uint32_t bytes;
    const void *data;
    while (fl_image_section(image, FL_SECTION_TILES, &from, &data, &bytes) == FL_OK) {
        const fl_tiles_t *tiles = data;
        if (tiles->kind == kind) {
            return tiles;
        }
    }
    return NULL;
}

static uint32_t tile_scratch(const fl_model_t *m, const fl_plan_step_t *s, fl_variant_t variant) {
    const fl_op_t *op = &m->ops[s->op];
    if (m->tensors[op->in[0]].dtype != FL_I8 || (s->flags & FL_STEP_PARTIAL)) {
        return 0;
    }
    fl_tile_t t;
    fl_tile_of(m->tensors, op, s, &t);
    switch (op->opcode) {
    case FL_OP_CONV2D:
        return fl_conv2d_scratch(variant, &t.p, &t.d);
    case FL_OP_DEPTHWISE_CONV2D:
        return fl_depthwise_conv2d_scratch(variant, &t.p, &t.d);
    case FL_OP_FULLY_CONNECTED:
        return fl_fully_connected_scratch(variant, t.d.out_c, t.d.in_c);
    default:
        return 0;
    }
}

// How often a step runs: steps are visited in order, `around` holds the loop that is open.
typedef struct {
    uint32_t left, times;
} around_t;

static uint32_t visit(around_t *around, const fl_plan_step_t *s) {
    if (s->kind == FL_STEP_LOOP) {
        *around = (around_t){s->op, s->rows};
        return 0;
    }
    if (around->left == 0) {
        return 1;
    }
    around->left--;
    return around->times;
}

uint32_t fl_tiles_scratch(const fl_model_t *m, const fl_tiles_t *tiles, uint32_t op, fl_variant_t variant) {
    uint32_t most = 0;
    around_t around = {0, 0};
    for (uint32_t i = 0; i < tiles->count; i++) {
        const fl_plan_step_t *s = &fl_steps_of(tiles)[i];
        const uint32_t times = visit(&around, s);
        if (times == 0 || s->kind == FL_STEP_COPY || (op != FL_EVERY_OP && s->op != op)) {
            continue;
        }
        uint32_t need;
        if (s->kind == FL_STEP_OP) {
            need = fl_op_scratch(m, s->op, variant);
        } else {
            // the padding may differ at both ends of a loop of two
            fl_plan_step_t last;
            fl_step_at(s, times - 1, &last);
            const uint32_t other = tile_scratch(m, &last, variant);
            need = tile_scratch(m, s, variant);
            need = other > need ? other : need;
        }
        most = need > most ? need : most;
    }
    return most;
}

uint64_t fl_tiles_macs(const fl_model_t *m, const fl_tiles_t *tiles, uint32_t op) {
    uint64_t macs = 0;
    around_t around = {0, 0};
    for (uint32_t i = 0; i < tiles->count; i++) {
        const fl_plan_step_t *s = &fl_steps_of(tiles)[i];
        const uint32_t times = visit(&around, s);
        if (times == 0 || s->kind == FL_STEP_COPY || s->op != op) {
            continue;
        }
        if (s->kind == FL_STEP_OP) {
            macs += times * fl_op_macs(m, op);
            continue;
        }
        fl_tile_t t;
        fl_tile_of(m->tensors, &m->ops[op], s, &t);
        const int32_t seen = m->ops[op].opcode == FL_OP_DEPTHWISE_CONV2D ? 1 : t.d.in_c;
        const uint32_t outputs = (uint32_t)(t.d.out_h * t.d.out_w * t.d.out_c);
        macs += (uint64_t)outputs * (uint32_t)(t.p.kernel_h * t.p.kernel_w * seen) * times;
    }
    return macs;
}
