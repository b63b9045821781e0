// The executor: an image opened, bound to an arena, and run operator by operator (run_*.c).
#include "fieldloop/fl_model.h"

#include <string.h>

#include "core/image.h"
#include "core/run.h"
#include "core/tiles.h"
#include "fieldloop/fl_error.h"
#include "fieldloop/fl_kernels.h"

int fl_model_open(fl_model_t *m, const void *image, size_t image_bytes) {
    memset(m, 0, sizeof(*m));
    int err = fl_image_check(image, image_bytes);
    if (err) {
        return err;
    }
    const fl_image_header_t *h = image;
    const void *tensors = NULL;
    const void *ops = NULL;
    const void *io = NULL;
    uint32_t bytes;
    uint32_t from = 0;
    fl_image_section(image, FL_SECTION_TENSORS, &from, &tensors, &bytes);
    from = 0;
    fl_image_section(image, FL_SECTION_OPERATORS, &from, &ops, &bytes);
    from = 0;
    fl_image_section(image, FL_SECTION_IO, &from, &io, &bytes);
    const uint16_t *counts = io;
    m->image = image;
    m->image_bytes = h->total_bytes;
    m->tensor_count = h->tensor_count;
    m->op_count = h->op_count;
    m->tensors = tensors;
    m->ops = ops;
    m->input_count = counts[0];
    m->output_count = counts[1];
    m->io = counts + 2;
    return FL_OK;
}

static const fl_plan_t *find_plan(const fl_model_t *m, uint32_t kind) {
    uint32_t from = 0;
    uint32_t bytes;
    const void *data;
    while (fl_image_section(m->image, FL_SECTION_PLAN, &from, &data, &bytes) == FL_OK) {
        const fl_plan_t *plan = data;
        if (plan->kind == kind && kind <= FL_PLAN_LEARN) {  // others are of a newer minor version, and unproven
            return plan;
        }
    }
    return NULL;
}

uint32_t fl_op_scratch(const fl_model_t *m, uint32_t op, fl_variant_t variant) {
    const fl_op_t *o = &m->ops[op];
    const fl_tensor_t *x = &m->tensors[o->in[0]];
    const fl_map_dims_t d = fl_map_dims(x, &m->tensors[o->out[0]]);
    if (x->dtype != FL_I8) {
        return 0;
    }
    switch (o->opcode) {
    case FL_OP_CONV2D:
        return fl_conv2d_scratch(variant, &o->p.conv, &d);
    case FL_OP_DEPTHWISE_CONV2D:
        return fl_depthwise_conv2d_scratch(variant, &o->p.conv, &d);
    case FL_OP_FULLY_CONNECTED: {
        const fl_tensor_t *w = &m->tensors[o->in[1]];
        return fl_fully_connected_scratch(variant, w->shape[0], w->shape[1]);
    }
    default:
        return 0;
    }
}

uint32_t fl_model_op_scratch(const fl_model_t *m, uint32_t op, fl_variant_t variant) {
    if (op >= m->op_count) {
        return 0;
    }
    return m->tiles ? fl_tiles_scratch(m, m->tiles, op, variant) : fl_op_scratch(m, op, variant);
}

static uint32_t kernels_scratch(const fl_model_t *m, const fl_tiles_t *tiles, fl_variant_t variant) {
    if (tiles) {
        return fl_tiles_scratch(m, tiles, FL_EVERY_OP, variant);
    }
    uint32_t most = 0;
    for (uint32_t i = 0; i < m->op_count; i++) {
        const uint32_t need = fl_op_scratch(m, i, variant);
        most = need > most ? need : most;
    }
    return most;
}

// Where the kernels' scratch begins: behind the activations. What a learner works in only after a run may lie there, too.
static uint32_t scratch_from(const fl_model_t *m, const fl_plan_t *plan, const fl_tiles_t *tiles) {
    const uint32_t *offsets = (const uint32_t *)(const void *)(plan + 1);
    uint32_t end = tiles ? plan->arena_bytes : 0;
    for (uint32_t t = 0; !tiles && t < m->tensor_count; t++) {
        if (m->tensors[t].kind != FL_CONSTANT && offsets[t] + m->tensors[t].bytes > end) {
            end = offsets[t] + m->tensors[t].bytes;
        }
    }
    return (end + FL_IMAGE_ALIGN - 1) & ~(uint32_t)(FL_IMAGE_ALIGN - 1);
}

size_t fl_model_variant_arena_bytes(const fl_model_t *m, uint32_t plan_kind, fl_variant_t variant) {
    const fl_plan_t *plan = find_plan(m, plan_kind);
    if (!plan) {
        return 0;
    }
    const fl_tiles_t *tiles = fl_find_tiles(m->image, plan_kind);
    const uint32_t scratch = kernels_scratch(m, tiles, variant);
    const size_t end = scratch ? (size_t)scratch_from(m, plan, tiles) + scratch : 0;
    return end > plan->arena_bytes ? end : plan->arena_bytes;
}

size_t fl_model_arena_bytes(const fl_model_t *m, uint32_t plan_kind) {
    return fl_model_variant_arena_bytes(m, plan_kind, fl_kernels_variant());
}

int fl_model_bind(fl_model_t *m, uint32_t plan_kind, void *arena, size_t arena_bytes) {
    const fl_plan_t *plan = find_plan(m, plan_kind);
    if (!plan) {
        return FL_ENOENT;
    }
    if ((uintptr_t)arena % FL_IMAGE_ALIGN != 0) {
        return FL_EALIGN;
    }
    const size_t need = fl_model_arena_bytes(m, plan_kind);
    if (!arena || arena_bytes < need) {
        return FL_ENOMEM;
    }
    m->plan = (const uint32_t *)(const void *)(plan + 1);
    m->tiles = fl_find_tiles(m->image, plan_kind);
    m->arena = arena;
    m->arena_bytes = (uint32_t)need;
    const uint32_t scratch = kernels_scratch(m, m->tiles, fl_kernels_variant());
    m->scratch = scratch ? m->arena + scratch_from(m, plan, m->tiles) : NULL;
    return FL_OK;
}

const void *fl_model_tensor(const fl_model_t *m, uint32_t t) {
    if (t >= m->tensor_count) {
        return NULL;
    }
    if (m->tensors[t].kind == FL_CONSTANT) {
        return m->image + m->tensors[t].offset;
    }
    return m->plan && m->plan[t] != FL_NO_PLACE ? m->arena + m->plan[t] : NULL;
}

void *fl_model_input(const fl_model_t *m, uint32_t i) {
    return i < m->input_count && m->plan ? m->arena + m->plan[m->io[i]] : NULL;
}

const void *fl_model_output(const fl_model_t *m, uint32_t i) {
    return i < m->output_count && m->plan ? m->arena + m->plan[m->io[m->input_count + i]] : NULL;
}

const fl_tensor_t *fl_model_input_info(const fl_model_t *m, uint32_t i) {
    return i < m->input_count ? &m->tensors[m->io[i]] : NULL;
}

const fl_tensor_t *fl_model_output_info(const fl_model_t *m, uint32_t i) {
    return i < m->output_count ? &m->tensors[m->io[m->input_count + i]] : NULL;
}

static const fl_override_t *find_override(const fl_model_t *m, uint32_t op) {
    for (uint32_t i = 0; i < m->override_count; i++) {
        if (m->overrides[i].op == op) {
            return &m->overrides[i];
        }
    }
    return NULL;
}

const int8_t *fl_model_weights(const fl_model_t *m, uint32_t op) {
    if (op >= m->op_count || !fl_is_weighted(m->ops[op].opcode)) {
        return NULL;
    }
    const fl_override_t *o = find_override(m, op);
    return o ? o->w : fl_model_tensor(m, m->ops[op].in[1]);
}

const int32_t *fl_model_bias(const fl_model_t *m, uint32_t op) {
    if (op >= m->op_count || !fl_is_weighted(m->ops[op].opcode) || m->ops[op].in[2] == FL_NO_TENSOR) {
        return NULL;
    }
    const fl_override_t *o = find_override(m, op);
    return o ? o->b : fl_model_tensor(m, m->ops[op].in[2]);
}

const int32_t *fl_model_folded_bias(const fl_model_t *m, uint32_t op) {
    // worked out on the host for the image's weights: those of a layer in training have none
    return m->ops[op].in[3] == FL_NO_TENSOR || find_override(m, op) ? NULL : fl_model_tensor(m, m->ops[op].in[3]);
}

static void run_op(const fl_model_t *m, uint32_t index) {
    const fl_op_t *op = &m->ops[index];
    if (fl_is_move(op->opcode)) {
        fl_run_move(m, op);
    } else if (m->tensors[op->in[0]].dtype != FL_F32) {
        fl_run_int8(m, index);
    } else {
        fl_run_f32(m, op);
    }
}

static void run_step(const fl_model_t *m, const fl_plan_step_t *s) {
    if (s->kind == FL_STEP_OP) {
        run_op(m, s->op);
    } else if (s->kind == FL_STEP_COPY) {
        fl_move(s->z, m->arena + s->x, m->arena + s->y);
    } else {
        fl_run_tile(m, s);
    }
}

// The steps of operators [first, end), in their order.
static void run_steps(const fl_model_t *m, uint32_t first, uint32_t end) {
    const fl_plan_step_t *s = fl_steps_of(m->tiles);
    const fl_plan_step_t *last = s + m->tiles->count;
    while (s < last) {
        uint32_t times = 1;
        uint32_t body = 1;
        if (s->kind == FL_STEP_LOOP) {
            times = s->rows;
            body = s->op;
            s++;
        }
        for (uint32_t i = 0; i < times; i++) {
            for (uint32_t k = 0; k < body; k++) {
                if (s[k].op >= first && s[k].op < end) {
                    fl_plan_step_t now;
                    if (i > 0) {
                        fl_step_at(&s[k], i, &now);
                    }
                    run_step(m, i > 0 ? &now : &s[k]);
                }
            }
        }
        s += body;
    }
}

int fl_model_run_ops(fl_model_t *m, uint32_t first, uint32_t end) {
    if (!m->plan || first > end || end > m->op_count) {
        return FL_EINVAL;
    }
    if (m->tiles) {
        run_steps(m, first, end);
        return FL_OK;
    }
    for (uint32_t i = first; i < end; i++) {
        run_op(m, i);
    }
    return FL_OK;
}

int fl_model_run(fl_model_t *m) {
    return fl_model_run_ops(m, 0, m->op_count);
}

uint64_t fl_op_macs(const fl_model_t *m, uint32_t op) {
    const fl_op_t *o = &m->ops[op];
    const fl_tensor_t *w = &m->tensors[o->in[1]];
    const uint32_t channels = (uint32_t)(o->opcode == FL_OP_DEPTHWISE_CONV2D ? w->shape[3] : w->shape[0]);
    return (uint64_t)fl_elements(&m->tensors[o->out[0]]) * (fl_elements(w) / channels);
}

uint64_t fl_model_op_macs(const fl_model_t *m, uint32_t op) {
    if (op >= m->op_count || !fl_is_weighted(m->ops[op].opcode)) {
        return 0;
    }
    return m->tiles ? fl_tiles_macs(m, m->tiles, op) : fl_op_macs(m, op);
}
