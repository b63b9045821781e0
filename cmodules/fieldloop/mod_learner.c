// _fieldloop.Learner: teaches a model, with one block of its own on MicroPython's heap. Storage is the store's.
#include <math.h>
#include <string.h>

#include "mod_learner.h"
#include "mod_tensor.h"

#include "py/cstack.h"

typedef struct {
    mp_obj_base_t base;
    fl_mp_model_t *model; // NULL: closed
    fl_learner_t l;
    fl_step_t last;   // what happened in the last step
    int8_t *sample;   // room for a quantised one; NULL until somebody gives real values
} learner_t;

static learner_t *get(mp_obj_t self_in) {
    learner_t *self = MP_OBJ_TO_PTR(self_in);
    if (self->model == NULL) {
        mp_raise_ValueError(MP_ERROR_TEXT("learner is closed: deinit() was called, or a newer one took its model"));
    }
    (void)fl_mp_get_model(MP_OBJ_FROM_PTR(self->model));
    return self;
}

FL_MP_NORETURN static void refuse(int error, const fl_learner_config_t *config) {
    const char *complaint = fl_learner_complaint(config);
    if (complaint != NULL) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("learner setting %s"), complaint);
    }
    switch (error) {
        case FL_ENOENT:
            mp_raise_ValueError(MP_ERROR_TEXT("image has no trainable layers; compile it with learning switched on"));
        case FL_ENOTSUP:
            mp_raise_ValueError(MP_ERROR_TEXT(
                "no backward kernel for an operator on the way back; train fewer layers (layers=1)"));
        case FL_EINVAL:
            mp_raise_ValueError(MP_ERROR_TEXT("image has fewer trainable layers than layers asks for, or it is too large"));
        default:
            fl_mp_raise(error, MP_ERROR_TEXT("the learner did not start"));
    }
}

// ---- life

// Opening and learning take more of the C stack than ports keep free below MicroPython's limit: RuntimeError instead of
// a learner at the bottom of a deep recursion. Opening lays a learner out before it has a place (fl_learner_sizes).
__attribute__((noinline)) static void need_stack_to_open(void) {
    volatile uint8_t room[sizeof(fl_learner_t) + 2048];
    room[0] = 0;
    mp_cstack_check();
    (void)room[0]; // still there while it checks
}

__attribute__((noinline)) static void need_stack_to_learn(void) {
    volatile uint8_t room[2048];
    room[0] = 0;
    mp_cstack_check();
    (void)room[0];
}

// Learner(model, **settings): starts from the image's weights. The newest learner of a model owns it.
static mp_obj_t learner_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 1, 1, true);
    if (!mp_obj_is_type(args[0], &fl_mp_type_model)) {
        mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("model: expected a Model, got %s"),
            mp_obj_get_type_str(args[0]));
    }
    fl_learner_config_t config;
    fl_learner_defaults(&config);
    for (size_t i = 0; i < n_kw; ++i) {
        fl_mp_learner_set(&config, mp_obj_str_get_qstr(args[n_args + 2 * i]), args[n_args + 2 * i + 1]);
    }
    fl_mp_model_t *model = fl_mp_get_model(args[0]); // after the settings: a __float__ may close it
    need_stack_to_open();
    fl_learner_sizes_t sizes;
    int error = fl_learner_sizes(&model->m, &config, &sizes);
    if (error != FL_OK) {
        refuse(error, &config);
    }
    if (model->learner != MP_OBJ_NULL) {
        fl_mp_learner_close(model->learner);
    }
    fl_mp_model_bind(model, FL_PLAN_LEARN);
    learner_t *self = mp_obj_malloc_with_finaliser(learner_t, type);
    self->model = NULL;
    memset(&self->l, 0, sizeof(self->l));
    memset(&self->last, 0, sizeof(self->last));
    self->sample = NULL;
    uint8_t *block = fl_mp_alloc(sizes.total_bytes, "learner");
    error = fl_learner_init(&self->l, &model->m, &config, block, sizes.total_bytes);
    if (error != FL_OK) {
        refuse(error, &config);
    }
    self->model = model;
    model->learner = MP_OBJ_FROM_PTR(self);
    return MP_OBJ_FROM_PTR(self);
}

void fl_mp_learner_close(mp_obj_t learner) {
    learner_t *self = MP_OBJ_TO_PTR(learner);
    if (self->model == NULL) {
        return;
    }
    self->model->m.overrides = NULL;
    self->model->m.override_count = 0;
    self->model->learner = MP_OBJ_NULL;
    self->model = NULL;
    memset(&self->l, 0, sizeof(self->l)); // lets go of the block
    self->sample = NULL;
}

static mp_obj_t learner_deinit(mp_obj_t self_in) {
    fl_mp_learner_close(self_in);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(learner_deinit_obj, learner_deinit);

static mp_obj_t learner_exit(size_t n_args, const mp_obj_t *args) {
    (void)n_args;
    return learner_deinit(args[0]);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(learner_exit_obj, 4, 4, learner_exit);

// ---- learning

// The int8 sample that `x` is or stands for; NULL: it has a value that is no finite number, and was counted as refused.
static const int8_t *sample_of(learner_t *self, mp_obj_t x) {
    const fl_tensor_t *in = fl_model_input_info(&self->model->m, 0);
    fl_mp_check_tensor(x, in, MP_BUFFER_READ, "x");
    mp_buffer_info_t given;
    mp_get_buffer_raise(x, &given, MP_BUFFER_READ);
    if (in->dtype != FL_I8 || (given.typecode & 0x7f) != 'f') {
        return given.buf;
    }
    if (self->sample == NULL) {
        self->sample = fl_mp_alloc(in->bytes, "sample");
    }
    int error = fl_learner_quantize(&self->l, given.buf, self->sample);
    if (error != FL_OK && error != FL_EDOM) {
        fl_mp_raise(error, MP_ERROR_TEXT("the sample was not quantised; nothing changed"));
    }
    return error == FL_OK ? self->sample : NULL;
}

static mp_obj_t learn(mp_obj_t self_in, mp_obj_t x, mp_obj_t label_in,
    int (*call)(fl_learner_t *, const int8_t *, uint32_t, fl_step_t *)) {
    mp_int_t label = mp_obj_get_int(label_in);
    learner_t *self = get(self_in);
    uint32_t classes = self->l.classes;
    if (label < 0 || (mp_uint_t)label >= classes) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("label: expected 0..%u, got %d"),
            (unsigned)(classes - 1), (int)label);
    }
    need_stack_to_learn();
    const int8_t *sample = sample_of(self, x);
    if (sample == NULL) {
        self->last = (fl_step_t){.error = (float)NAN};
        return mp_const_none;
    }
    int error = call(&self->l, sample, (uint32_t)label, &self->last);
    if (error != FL_OK) {
        fl_mp_raise(error, MP_ERROR_TEXT("the sample was not learned; nothing changed"));
    }
    return MP_OBJ_NEW_SMALL_INT(self->last.predicted);
}

// step(x, label) -> the class predicted before; None: refused, x holds a NaN or an infinity. Keeps the sample, trains on
// it, then replays. x: int8, or array('f') of real values. Allocates nothing but, once, room for a quantised sample.
static mp_obj_t learner_step(mp_obj_t self_in, mp_obj_t x, mp_obj_t label) {
    return learn(self_in, x, label, fl_learner_step);
}
static MP_DEFINE_CONST_FUN_OBJ_3(learner_step_obj, learner_step);

// train(x, label): one sample without memory or replay.
static mp_obj_t learner_train(mp_obj_t self_in, mp_obj_t x, mp_obj_t label) {
    return learn(self_in, x, label, fl_learner_train);
}
static MP_DEFINE_CONST_FUN_OBJ_3(learner_train_obj, learner_train);

// flush(): writes what a batch has gathered so far.
static mp_obj_t learner_flush(mp_obj_t self_in) {
    learner_t *self = get(self_in);
    need_stack_to_learn();
    fl_learner_flush(&self->l);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(learner_flush_obj, learner_flush);

// evaluate() -> (right, total) of the held-out samples of the image's rehearsal set.
static mp_obj_t learner_evaluate(mp_obj_t self_in) {
    uint32_t right, total;
    int error = fl_learner_evaluate(&get(self_in)->l, &right, &total);
    if (error != FL_OK) {
        fl_mp_raise(error, MP_ERROR_TEXT("the learner's model was bound to another plan; open the learner again"));
    }
    mp_obj_t pair[2] = {mp_obj_new_int_from_uint(right), mp_obj_new_int_from_uint(total)};
    return mp_obj_new_tuple(2, pair);
}
static MP_DEFINE_CONST_FUN_OBJ_1(learner_evaluate_obj, learner_evaluate);

// reset(): the image's own weights, an empty memory, zero counters, the configured seed.
static mp_obj_t learner_reset(mp_obj_t self_in) {
    fl_learner_reset(&get(self_in)->l);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(learner_reset_obj, learner_reset);

// state(): a view of what a commit writes; it changes with the next step.
static mp_obj_t learner_state(mp_obj_t self_in) {
    learner_t *self = get(self_in);
    const uint8_t *state = fl_learner_state(&self->l);
    return fl_mp_view_block(self->l.block, (size_t)(state - self->l.block), self->l.sizes.state_bytes);
}
static MP_DEFINE_CONST_FUN_OBJ_1(learner_state_obj, learner_state);

// load(state): takes over the state of another run; checked first.
static mp_obj_t learner_load(mp_obj_t self_in, mp_obj_t state) {
    learner_t *self = get(self_in);
    mp_buffer_info_t bytes;
    fl_mp_get_buffer(state, &bytes, MP_BUFFER_READ, "state");
    int error = fl_learner_load(&self->l, bytes.buf, bytes.len);
    if (error == FL_EINVAL) {
        mp_raise_ValueError(MP_ERROR_TEXT(
            "learned state belongs to another model or configuration; open the learner with the same settings"));
    } else if (error != FL_OK) {
        fl_mp_raise(error, MP_ERROR_TEXT("learned state is damaged; nothing changed"));
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(learner_load_obj, learner_load);

// ---- what it did, and what it takes

static void put(mp_obj_t dict, qstr name, mp_obj_t value) {
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(name), value);
}

static void put_int(mp_obj_t dict, qstr name, uint32_t value) {
    put(dict, name, mp_obj_new_int_from_uint(value));
}

static mp_obj_t learner_stats(mp_obj_t self_in) {
    const fl_learner_stats_t *s = fl_learner_stats(&get(self_in)->l);
    mp_obj_t dict = mp_obj_new_dict(12);
    put_int(dict, MP_QSTR_samples, s->samples);
    put_int(dict, MP_QSTR_replayed, s->replayed);
    put_int(dict, MP_QSTR_trained, s->trained);
    put_int(dict, MP_QSTR_skipped, s->skipped);
    put_int(dict, MP_QSTR_refused, s->refused);
    put_int(dict, MP_QSTR_remembered, s->remembered);
    put_int(dict, MP_QSTR_clamped, s->clamped);
    put_int(dict, MP_QSTR_updates, s->updates);
    put(dict, MP_QSTR_clipped, mp_obj_new_int_from_ull(s->clipped));
    put(dict, MP_QSTR_forward_macs, mp_obj_new_int_from_ull(s->forward_macs));
    put(dict, MP_QSTR_backward_macs, mp_obj_new_int_from_ull(s->backward_macs));
    put(dict, MP_QSTR_dense_backward_macs, mp_obj_new_int_from_ull(s->dense_backward_macs));
    return dict;
}
static MP_DEFINE_CONST_FUN_OBJ_1(learner_stats_obj, learner_stats);

// layer_stats() -> a dict for each trained layer, from the output backwards.
static mp_obj_t learner_layer_stats(mp_obj_t self_in) {
    learner_t *self = get(self_in);
    uint32_t count = self->l.layer_count;
    mp_obj_t list = mp_obj_new_list(count, NULL);
    for (uint32_t i = 0; i < count; ++i) {
        const fl_layer_t *layer = &self->l.layers[i];
        const fl_layer_stats_t *s = fl_learner_layer_stats(&self->l, i);
        mp_obj_t dict = mp_obj_new_dict(7);
        put_int(dict, MP_QSTR_op, layer->op);
        put(dict, MP_QSTR_entries, mp_obj_new_int_from_ull(s->entries));
        put(dict, MP_QSTR_kept, mp_obj_new_int_from_ull(s->kept));
        put(dict, MP_QSTR_ratio,
            mp_obj_new_float(s->entries == 0 ? 0 : (mp_float_t)s->kept / (mp_float_t)s->entries));
        put(dict, MP_QSTR_clipped, mp_obj_new_int_from_ull(s->clipped));
        put_int(dict, MP_QSTR_weights, layer->rows * layer->row_bytes);
        put_int(dict, MP_QSTR_saturated, fl_learner_saturated(&self->l, i));
        mp_obj_list_store(list, MP_OBJ_NEW_SMALL_INT(i), dict);
    }
    return list;
}
static MP_DEFINE_CONST_FUN_OBJ_1(learner_layer_stats_obj, learner_layer_stats);

// Bytes of RAM: `total` is the model's arena and the learner's own block, the rest says what is in them.
static mp_obj_t plan_of(const learner_t *self) {
    const fl_learner_sizes_t *sizes = &self->l.sizes;
    uint32_t arena = self->model == NULL ? 0 : (uint32_t)self->model->m.arena_bytes;
    mp_obj_t dict = mp_obj_new_dict(9);
    put_int(dict, MP_QSTR_total, arena + sizes->total_bytes);
    put_int(dict, MP_QSTR_arena, arena);
    put_int(dict, MP_QSTR_state, sizes->state_bytes);
    put_int(dict, MP_QSTR_weights, sizes->weight_bytes);
    put_int(dict, MP_QSTR_optimizer, sizes->optimizer_bytes);
    put_int(dict, MP_QSTR_memory, sizes->memory_bytes);
    put_int(dict, MP_QSTR_scratch, sizes->scratch_bytes);
    put_int(dict, MP_QSTR_lent, sizes->lent_bytes);
    put_int(dict, MP_QSTR_batch, sizes->batch_bytes);
    return dict;
}

// ---- how much of its block a step really touches; the scratch that the model lends is the model's to paint

// paint(pattern): fills the whole block and starts again from the image's weights: what was learned is gone.
static mp_obj_t learner_paint(mp_obj_t self_in, mp_obj_t pattern) {
    int paint = (int)(mp_obj_get_int(pattern) & 0xff);
    need_stack_to_open();
    learner_t *self = get(self_in);
    uint8_t *block = self->l.block;
    size_t bytes = self->l.sizes.total_bytes;
    fl_learner_config_t config = self->l.config;
    memset(block, paint, bytes);
    int error = fl_learner_init(&self->l, &self->model->m, &config, block, bytes);
    if (error != FL_OK) {
        refuse(error, &config);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(learner_paint_obj, learner_paint);

static mp_obj_t learner_touched(mp_obj_t self_in, mp_obj_t pattern) {
    uint8_t paint = (uint8_t)mp_obj_get_int(pattern);
    learner_t *self = get(self_in);
    return mp_obj_new_int_from_uint(fl_mp_touched(self->l.block, self->l.sizes.total_bytes, paint));
}
static MP_DEFINE_CONST_FUN_OBJ_2(learner_touched_obj, learner_touched);

static void learner_attr(mp_obj_t self_in, qstr attr, mp_obj_t *dest) {
    learner_t *self = MP_OBJ_TO_PTR(self_in);
    if (dest[0] != MP_OBJ_NULL) {
        return; // nothing can be set
    }
    const fl_learner_sizes_t *sizes = &self->l.sizes;
    mp_obj_t value = MP_OBJ_NULL;
    switch (attr) {
        case MP_QSTR_closed: value = mp_obj_new_bool(self->model == NULL); break;
        case MP_QSTR_model: value = self->model == NULL ? mp_const_none : MP_OBJ_FROM_PTR(self->model); break;
        case MP_QSTR_config: value = fl_mp_learner_config(&self->l.config); break;
        case MP_QSTR_packed:
            value = mp_obj_new_bytes((const byte *)&self->l.config, sizeof(self->l.config));
            break;
        case MP_QSTR_layers: value = mp_obj_new_int_from_uint(self->l.layer_count); break;
        case MP_QSTR_total_bytes: value = mp_obj_new_int_from_uint(sizes->total_bytes); break;
        case MP_QSTR_state_bytes: value = mp_obj_new_int_from_uint(sizes->state_bytes); break;
        case MP_QSTR_weight_bytes: value = mp_obj_new_int_from_uint(sizes->weight_bytes); break;
        case MP_QSTR_optimizer_bytes: value = mp_obj_new_int_from_uint(sizes->optimizer_bytes); break;
        case MP_QSTR_memory_bytes: value = mp_obj_new_int_from_uint(sizes->memory_bytes); break;
        case MP_QSTR_scratch_bytes: value = mp_obj_new_int_from_uint(sizes->scratch_bytes); break;
        case MP_QSTR_lent_bytes: value = mp_obj_new_int_from_uint(sizes->lent_bytes); break;
        case MP_QSTR_batch_bytes: value = mp_obj_new_int_from_uint(sizes->batch_bytes); break;
        case MP_QSTR_plan: value = plan_of(self); break;
        case MP_QSTR_error: value = mp_obj_new_float((mp_float_t)self->last.error); break;
        case MP_QSTR_trained: value = mp_obj_new_bool(self->last.trained != 0); break;
        case MP_QSTR_kept: value = mp_obj_new_int_from_uint(self->last.kept); break;
        default: dest[1] = MP_OBJ_SENTINEL; return; // a method
    }
    dest[0] = value;
}

static void learner_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    (void)kind;
    learner_t *self = MP_OBJ_TO_PTR(self_in);
    if (self->model == NULL) {
        mp_print_str(print, "Learner(closed)");
        return;
    }
    mp_printf(print, "Learner(%q, %u layers, %u bytes, of these state %u, %u samples learned)",
        fl_mp_learner_selector(&self->l.config), (unsigned)self->l.layer_count,
        (unsigned)self->l.sizes.total_bytes, (unsigned)self->l.sizes.state_bytes,
        (unsigned)fl_learner_stats(&self->l)->samples);
}

static const mp_rom_map_elem_t learner_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_step), MP_ROM_PTR(&learner_step_obj) },
    { MP_ROM_QSTR(MP_QSTR_train), MP_ROM_PTR(&learner_train_obj) },
    { MP_ROM_QSTR(MP_QSTR_flush), MP_ROM_PTR(&learner_flush_obj) },
    { MP_ROM_QSTR(MP_QSTR_evaluate), MP_ROM_PTR(&learner_evaluate_obj) },
    { MP_ROM_QSTR(MP_QSTR_reset), MP_ROM_PTR(&learner_reset_obj) },
    { MP_ROM_QSTR(MP_QSTR_state), MP_ROM_PTR(&learner_state_obj) },
    { MP_ROM_QSTR(MP_QSTR_load), MP_ROM_PTR(&learner_load_obj) },
    { MP_ROM_QSTR(MP_QSTR_stats), MP_ROM_PTR(&learner_stats_obj) },
    { MP_ROM_QSTR(MP_QSTR_layer_stats), MP_ROM_PTR(&learner_layer_stats_obj) },
    { MP_ROM_QSTR(MP_QSTR_paint), MP_ROM_PTR(&learner_paint_obj) },
    { MP_ROM_QSTR(MP_QSTR_touched), MP_ROM_PTR(&learner_touched_obj) },
    { MP_ROM_QSTR(MP_QSTR_deinit), MP_ROM_PTR(&learner_deinit_obj) },
    { MP_ROM_QSTR(MP_QSTR___del__), MP_ROM_PTR(&learner_deinit_obj) },
    { MP_ROM_QSTR(MP_QSTR___enter__), MP_ROM_PTR(&mp_identity_obj) },
    { MP_ROM_QSTR(MP_QSTR___exit__), MP_ROM_PTR(&learner_exit_obj) },
};
static MP_DEFINE_CONST_DICT(learner_locals, learner_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    fl_mp_type_learner,
    MP_QSTR_Learner,
    MP_TYPE_FLAG_NONE,
    make_new, learner_make_new,
    print, learner_print,
    attr, learner_attr,
    locals_dict, &learner_locals
    );
