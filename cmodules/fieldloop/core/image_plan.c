// Plans: a place in the arena for what needs one, and nothing that is written over while it is read.
#include "core/image_checks.h"

// Elements of one size, each made from the one where it will lie.
static int is_in_place(uint32_t opcode) {
    return fl_is_binary(opcode) || opcode == FL_OP_TABLE || opcode == FL_OP_UNARY;
}

// An operator may not write over what it reads; a reshape may leave everything where it is.
int fl_check_whole(const fl_view_t *v, const fl_places_t *a, const fl_op_t *op, int in_place) {
    const fl_tensor_t *y = fl_tensor_of(v, op->out[0]);
    const uint32_t out = a->offsets[op->out[0]];
    if (out == FL_NO_PLACE) {
        return FL_EBADMSG;
    }
    for (uint32_t i = 0; i < fl_op_places(op); i++) {
        const uint32_t t = fl_op_input(op, i);
        if (t == FL_NO_TENSOR || v->tensors[t].kind != FL_ACTIVATION) {
            continue;
        }
        const uint32_t in = a->offsets[t];
        const uint32_t bytes = v->tensors[t].bytes;
        if (in == FL_NO_PLACE) {
            return FL_EBADMSG;
        }
        const int stays = in == out && bytes == y->bytes &&
                          (op->opcode == FL_OP_RESHAPE || (in_place && is_in_place(op->opcode)));
        if (in < out + y->bytes && out < in + bytes && !stays) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}

static int check_places(const fl_view_t *v, fl_places_t *a, int tiled) {
    for (uint32_t i = 0; i < v->tensor_count; i++) {
        const fl_tensor_t *t = &v->tensors[i];
        const uint32_t at = a->offsets[i];
        if (t->kind == FL_CONSTANT) {
            if (at != FL_NO_PLACE) {
                return FL_EBADMSG;
            }
            continue;
        }
        if (tiled && at == FL_NO_PLACE) {
            continue;
        }
        if (t->bytes > a->plan->arena_bytes || at > a->plan->arena_bytes - t->bytes ||
            at % fl_dtype_bytes(t->dtype) != 0) {
            return FL_EBADMSG;
        }
        a->highest = at + t->bytes > a->highest ? at + t->bytes : a->highest;
    }
    for (uint32_t i = 0; i < v->input_count + v->output_count; i++) {
        if (a->offsets[v->io[i]] == FL_NO_PLACE) {
            return FL_EBADMSG;
        }
    }
    return FL_OK;
}

static int check_scratch(fl_places_t *a) {
    const fl_plan_t *p = a->plan;
    if (p->learner_scratch_bytes == 0) {
        return FL_OK;
    }
    if (p->kind != FL_PLAN_LEARN || p->learner_scratch % FL_IMAGE_ALIGN != 0 ||
        p->learner_scratch_bytes > p->arena_bytes || p->learner_scratch > p->arena_bytes - p->learner_scratch_bytes) {
        return FL_EBADMSG;
    }
    const uint32_t end = p->learner_scratch + p->learner_scratch_bytes;
    a->highest = end > a->highest ? end : a->highest;
    return FL_OK;
}

static int check_plan(const fl_view_t *v, const fl_plan_t *plan, uint32_t bytes, const fl_section_t *tiles) {
    if (bytes != sizeof(*plan) + (uint64_t)v->tensor_count * sizeof(uint32_t)) {
        return FL_EBADMSG;
    }
    if (plan->arena_bytes > FL_MAX_BYTES) {
        return FL_ENOTSUP;
    }
    fl_places_t a = {plan, (const uint32_t *)(const void *)(plan + 1), 0};
    int err = check_places(v, &a, tiles != NULL);
    if (!err) {
        err = check_scratch(&a);
    }
    if (!err && tiles) {
        err = fl_check_tiles(v, &a, tiles);
    }
    for (uint32_t i = 0; !err && !tiles && i < v->op_count; i++) {
        err = fl_check_whole(v, &a, &v->ops[i], 0);
    }
    return err ? err : a.highest == plan->arena_bytes ? FL_OK : FL_EBADMSG;
}

// Sections of one type and kind: FL_EBADMSG where there are two of a known kind, or one too short for its head.
static int by_kind(const fl_view_t *v, uint32_t type, uint32_t head, const fl_section_t *found[2]) {
    for (uint32_t i = 0; i < v->section_count; i++) {
        const fl_section_t *s = &v->sections[i];
        if (s->type != type) {
            continue;
        }
        if (s->bytes < head) {
            return FL_EBADMSG;
        }
        const uint32_t kind = *(const uint32_t *)fl_at(v, s->offset);
        if (kind > FL_PLAN_LEARN) {
            continue;  // of a newer minor version: nobody will ask for it
        }
        if (found[kind]) {
            return FL_EBADMSG;
        }
        found[kind] = s;
    }
    return FL_OK;
}

int fl_check_plans(const fl_view_t *v) {
    const fl_section_t *plans[2] = {NULL, NULL};
    const fl_section_t *tiles[2] = {NULL, NULL};
    if (by_kind(v, FL_SECTION_PLAN, sizeof(fl_plan_t), plans) || by_kind(v, FL_SECTION_TILES, sizeof(fl_tiles_t), tiles) ||
        !plans[FL_PLAN_INFER] || (tiles[FL_PLAN_LEARN] && !plans[FL_PLAN_LEARN])) {
        return FL_EBADMSG;
    }
    int err = FL_OK;
    for (uint32_t kind = 0; !err && kind < 2; kind++) {
        if (plans[kind]) {
            err = check_plan(v, (const fl_plan_t *)fl_at(v, plans[kind]->offset), plans[kind]->bytes, tiles[kind]);
        }
    }
    return err;
}
