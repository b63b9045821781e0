// _fieldloop.Learner: teaches a model, with one block of its own on MicroPython's heap. Storage is the store's.
#include <string.h>

#include "mod_common.h"

#include "py/cstack.h"

typedef struct {
    mp_obj_base_t base;
    fl_mp_model_t *model; // NULL: closed
    fl_learner_t l;
    fl_step_t last; // what happened in the last step
} learner_t;

static learner_t *get(mp_obj_t self_in) {
    learner_t *self = MP_OBJ_TO_PTR(self_in);
    if (self->model == NULL) {
        mp_raise_ValueError(MP_ERROR_TEXT("learner is closed: deinit() was called, or a newer one took its model"));
    }
    (void)fl_mp_get_model(MP_OBJ_FROM_PTR(self->model));
    return self;
}

// ---- configuration: keywords are the fields of fl_learner_config_t

typedef enum { SETTING_U32, SETTING_FLOAT, SETTING_MASK, SETTING_CHOICE } setting_kind_t; // CHOICE + place in `choices`

typedef struct {
    uint16_t name; // qstr
    uint8_t kind;  // setting_kind_t
    uint8_t offset;
} setting_t;

// The learner's own copy is written to the store as it is, so its layout is part of the record.
_Static_assert(sizeof(fl_learner_config_t) == 128, "packed settings have 32 words");

#define SETTING(field, kind) {MP_QSTR_##field, kind, offsetof(fl_learner_config_t, field)}
static const setting_t settings[] = {
    SETTING(selector, SETTING_CHOICE + 0),
    SETTING(skip, SETTING_CHOICE + 1),
    SETTING(unit, SETTING_CHOICE + 2),
    SETTING(rank, SETTING_CHOICE + 3),
    SETTING(search, SETTING_CHOICE + 4),
    SETTING(bias_mode, SETTING_CHOICE + 5),
    SETTING(k_rule, SETTING_CHOICE + 6),
    SETTING(deltas, SETTING_CHOICE + 7),
    SETTING(weights, SETTING_CHOICE + 8),
    SETTING(optimizer, SETTING_CHOICE + 9),
    SETTING(layers, SETTING_U32),
    SETTING(floor, SETTING_U32),
    SETTING(batch, SETTING_U32),
    SETTING(max_step, SETTING_U32),
    SETTING(s_min, SETTING_FLOAT),
    SETTING(s_max, SETTING_FLOAT),
    SETTING(zeta, SETTING_FLOAT),
    SETTING(d_min, SETTING_FLOAT),
    SETTING(d_max, SETTING_FLOAT),
    SETTING(d_thr, SETTING_FLOAT),
    SETTING(rho, SETTING_FLOAT),
    SETTING(lr, SETTING_FLOAT),
    SETTING(beta1, SETTING_FLOAT),
    SETTING(beta2, SETTING_FLOAT),
    SETTING(replays, SETTING_U32),
    SETTING(memory, SETTING_U32),
    SETTING(holdout, SETTING_U32),
    SETTING(seed, SETTING_U32),
    SETTING(mask, SETTING_MASK),
};

// Names of the choices, in the order of their enumerators; 0 ends a list.
static const uint16_t choices[][9] = {
    {MP_QSTR_tinypropv2, MP_QSTR_tinyprop, MP_QSTR_dense, MP_QSTR_topk, MP_QSTR_random, MP_QSTR_loss, MP_QSTR_mask,
     MP_QSTR_budget},
    {MP_QSTR_auto, MP_QSTR_on, MP_QSTR_off},
    {MP_QSTR_element, MP_QSTR_channel},
    {MP_QSTR_error, MP_QSTR_activation},
    {MP_QSTR_auto, MP_QSTR_heap, MP_QSTR_histogram, MP_QSTR_threshold},
    {MP_QSTR_topk, MP_QSTR_dense},
    {MP_QSTR_integer, MP_QSTR_trunc_f32},
    {MP_QSTR_f32, MP_QSTR_int16},
    {MP_QSTR_int8, MP_QSTR_int16, MP_QSTR_f32},
    {MP_QSTR_sgd, MP_QSTR_momentum, MP_QSTR_adam},
};

static const uint16_t *choices_of(uint8_t kind, size_t *count) {
    if (kind < SETTING_CHOICE) {
        *count = 0;
        return NULL;
    }
    const uint16_t *names = choices[kind - SETTING_CHOICE];
    for (*count = 0; names[*count] != 0; ++*count) {
    }
    return names;
}

// mask: shares of 0 to 1 from the output backwards, in any sequence.
static void set_mask(uint8_t *mask, mp_obj_t value) {
    size_t count;
    mp_obj_t *shares;
    mp_obj_get_array(value, &count, &shares);
    if (count > FL_MAX_TRAINABLE) {
        mp_raise_ValueError(MP_ERROR_TEXT("mask: more shares than a learner can train layers"));
    }
    memset(mask, 0, FL_MAX_TRAINABLE);
    for (size_t i = 0; i < count; ++i) {
        float share = mp_obj_get_float_to_f(shares[i]);
        if (!(share >= 0.0f && share <= 1.0f)) {
            mp_raise_ValueError(MP_ERROR_TEXT("mask: expected shares of 0 to 1"));
        }
        mask[i] = (uint8_t)(share * 255.0f + 0.5f);
    }
}

static void set(fl_learner_config_t *config, qstr name, mp_obj_t value) {
    if (name == MP_QSTR_packed) { // all of them at once, as Learner.packed gave them
        mp_buffer_info_t packed;
        fl_mp_get_buffer(value, &packed, MP_BUFFER_READ, "packed");
        if (packed.len != sizeof(*config)) {
            mp_raise_ValueError(MP_ERROR_TEXT("packed: settings of another version of fieldloop"));
        }
        memcpy(config, packed.buf, sizeof(*config));
        return;
    }
    for (size_t i = 0; i < MP_ARRAY_SIZE(settings); ++i) {
        const setting_t *s = &settings[i];
        if (s->name != name) {
            continue;
        }
        void *field = (uint8_t *)config + s->offset;
        if (s->kind == SETTING_FLOAT) {
            *(float *)field = mp_obj_get_float_to_f(value);
            return;
        }
        if (s->kind == SETTING_MASK) {
            set_mask(field, value);
            return;
        }
        size_t count;
        const uint16_t *choices = choices_of(s->kind, &count);
        if (choices != NULL && mp_obj_is_str(value)) {
            for (size_t c = 0; c < count; ++c) {
                if (mp_obj_equal(MP_OBJ_NEW_QSTR(choices[c]), value)) {
                    *(uint32_t *)field = (uint32_t)c;
                    return;
                }
            }
            mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%q: unknown choice '%s'"), name,
                mp_obj_str_get_str(value));
        }
        if (name != MP_QSTR_seed && mp_obj_is_small_int(value) && mp_obj_get_int(value) < 0) {
            mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%q: expected 0 or more, got %d"), name,
                (int)mp_obj_get_int(value));
        }
        *(uint32_t *)field = (uint32_t)mp_obj_get_int_truncated(value);
        return;
    }
    mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("unknown setting '%q'; help: Learner.config names them all"),
        name);
}

static mp_obj_t config_of(const fl_learner_config_t *config) {
    mp_obj_t dict = mp_obj_new_dict(MP_ARRAY_SIZE(settings));
    for (size_t i = 0; i < MP_ARRAY_SIZE(settings); ++i) {
        const setting_t *s = &settings[i];
        const void *field = (const uint8_t *)config + s->offset;
        size_t count;
        const uint16_t *choices = choices_of(s->kind, &count);
        mp_obj_t value;
        if (s->kind == SETTING_FLOAT) {
            value = mp_obj_new_float((mp_float_t)*(const float *)field);
        } else if (s->kind == SETTING_MASK) {
            value = mp_obj_new_tuple(FL_MAX_TRAINABLE, NULL);
            mp_obj_tuple_t *shares = MP_OBJ_TO_PTR(value);
            for (size_t layer = 0; layer < FL_MAX_TRAINABLE; ++layer) {
                shares->items[layer] = mp_obj_new_float((mp_float_t)(((const uint8_t *)field)[layer] / 255.0f));
            }
        } else if (choices != NULL) {
            value = MP_OBJ_NEW_QSTR(choices[*(const uint32_t *)field]);
        } else {
            value = mp_obj_new_int_from_uint(*(const uint32_t *)field);
        }
        mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(s->name), value);
    }
    return dict;
}

FL_MP_NORETURN static void refuse(int error) {
    switch (error) {
        case FL_ENOENT:
            mp_raise_ValueError(MP_ERROR_TEXT("image has no trainable layers; compile it with learning switched on"));
        case FL_EINVAL:
            mp_raise_ValueError(MP_ERROR_TEXT(
                "a learner setting is out of its range, or would train never or always; see Learner.config"));
        case FL_ENOTSUP:
            mp_raise_ValueError(MP_ERROR_TEXT(
                "no backward kernel for an operator on the way back; train fewer layers (layers=1)"));
        default:
            fl_mp_raise(error, MP_ERROR_TEXT("the learner did not start"));
    }
}

// ---- life

// Opening takes more of the C stack than ports keep free below MicroPython's limit: RuntimeError instead of
// a learner at the bottom of a deep recursion.
__attribute__((noinline)) static void need_stack(void) {
    volatile uint8_t room[2048];
    room[0] = 0;
    mp_cstack_check();
    (void)room[0]; // still there while it checks
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
        set(&config, mp_obj_str_get_qstr(args[n_args + 2 * i]), args[n_args + 2 * i + 1]);
    }
    fl_mp_model_t *model = fl_mp_get_model(args[0]); // after the settings: a __float__ may close it
    need_stack();
    fl_learner_sizes_t sizes;
    int error = fl_learner_sizes(&model->m, &config, &sizes);
    if (error != FL_OK) {
        refuse(error);
    }
    if (model->learner != MP_OBJ_NULL) {
        fl_mp_learner_close(model->learner);
    }
    fl_mp_model_bind(model, FL_PLAN_LEARN);
    learner_t *self = mp_obj_malloc_with_finaliser(learner_t, type);
    self->model = NULL;
    memset(&self->l, 0, sizeof(self->l));
    memset(&self->last, 0, sizeof(self->last));
    uint8_t *block = fl_mp_alloc(sizes.total_bytes, "learner");
    error = fl_learner_init(&self->l, &model->m, &config, block, sizes.total_bytes);
    if (error != FL_OK) {
        refuse(error);
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

static mp_obj_t learn(mp_obj_t self_in, mp_obj_t x, mp_obj_t label_in,
    int (*call)(fl_learner_t *, const int8_t *, uint32_t, fl_step_t *)) {
    mp_int_t label = mp_obj_get_int(label_in);
    learner_t *self = get(self_in);
    const fl_tensor_t *in = fl_model_input_info(&self->model->m, 0);
    mp_buffer_info_t sample;
    fl_mp_get_bytes(x, &sample, MP_BUFFER_READ, in->bytes, "x");
    uint32_t classes = self->l.classes;
    if (label < 0 || (mp_uint_t)label >= classes) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("label: expected 0..%u, got %d"),
            (unsigned)(classes - 1), (int)label);
    }
    int error = call(&self->l, sample.buf, (uint32_t)label, &self->last);
    if (error != FL_OK) {
        fl_mp_raise(error, MP_ERROR_TEXT("the sample was not learned; nothing changed"));
    }
    return MP_OBJ_NEW_SMALL_INT(self->last.predicted);
}

// step(x, label) -> the class predicted before. Keeps the sample, trains on it, then replays. Allocates nothing.
static mp_obj_t learner_step(mp_obj_t self_in, mp_obj_t x, mp_obj_t label) {
    return learn(self_in, x, label, fl_learner_step);
}
static MP_DEFINE_CONST_FUN_OBJ_3(learner_step_obj, learner_step);

// train(x, label): one sample without memory or replay.
static mp_obj_t learner_train(mp_obj_t self_in, mp_obj_t x, mp_obj_t label) {
    return learn(self_in, x, label, fl_learner_train);
}
static MP_DEFINE_CONST_FUN_OBJ_3(learner_train_obj, learner_train);

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

static mp_obj_t learner_stats(mp_obj_t self_in) {
    const fl_learner_stats_t *s = fl_learner_stats(&get(self_in)->l);
    mp_obj_t dict = mp_obj_new_dict(9);
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_samples), mp_obj_new_int_from_uint(s->samples));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_replayed), mp_obj_new_int_from_uint(s->replayed));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_trained), mp_obj_new_int_from_uint(s->trained));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_skipped), mp_obj_new_int_from_uint(s->skipped));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_refused), mp_obj_new_int_from_uint(s->refused));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_remembered), mp_obj_new_int_from_uint(s->remembered));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_forward_macs), mp_obj_new_int_from_ull(s->forward_macs));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_backward_macs), mp_obj_new_int_from_ull(s->backward_macs));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_dense_backward_macs),
        mp_obj_new_int_from_ull(s->dense_backward_macs));
    return dict;
}
static MP_DEFINE_CONST_FUN_OBJ_1(learner_stats_obj, learner_stats);

// ---- how much of its block a step really touches; the scratch that the model lends is the model's to paint

// paint(pattern): fills the whole block and starts again from the image's weights: what was learned is gone.
static mp_obj_t learner_paint(mp_obj_t self_in, mp_obj_t pattern) {
    int paint = (int)(mp_obj_get_int(pattern) & 0xff);
    need_stack();
    learner_t *self = get(self_in);
    uint8_t *block = self->l.block;
    size_t bytes = self->l.sizes.total_bytes;
    fl_learner_config_t config = self->l.config;
    memset(block, paint, bytes);
    int error = fl_learner_init(&self->l, &self->model->m, &config, block, bytes);
    if (error != FL_OK) {
        refuse(error);
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
        case MP_QSTR_config: value = config_of(&self->l.config); break;
        case MP_QSTR_packed:
            value = mp_obj_new_bytes((const byte *)&self->l.config, sizeof(self->l.config));
            break;
        case MP_QSTR_layers: value = mp_obj_new_int_from_uint(self->l.layer_count); break;
        case MP_QSTR_total_bytes: value = mp_obj_new_int_from_uint(sizes->total_bytes); break;
        case MP_QSTR_state_bytes: value = mp_obj_new_int_from_uint(sizes->state_bytes); break;
        case MP_QSTR_weight_bytes: value = mp_obj_new_int_from_uint(sizes->weight_bytes); break;
        case MP_QSTR_memory_bytes: value = mp_obj_new_int_from_uint(sizes->memory_bytes); break;
        case MP_QSTR_scratch_bytes: value = mp_obj_new_int_from_uint(sizes->scratch_bytes); break;
        case MP_QSTR_lent_bytes: value = mp_obj_new_int_from_uint(sizes->lent_bytes); break;
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
        (qstr)choices[0][self->l.config.selector], (unsigned)self->l.layer_count,
        (unsigned)self->l.sizes.total_bytes, (unsigned)self->l.sizes.state_bytes,
        (unsigned)fl_learner_stats(&self->l)->samples);
}

static const mp_rom_map_elem_t learner_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_step), MP_ROM_PTR(&learner_step_obj) },
    { MP_ROM_QSTR(MP_QSTR_train), MP_ROM_PTR(&learner_train_obj) },
    { MP_ROM_QSTR(MP_QSTR_reset), MP_ROM_PTR(&learner_reset_obj) },
    { MP_ROM_QSTR(MP_QSTR_state), MP_ROM_PTR(&learner_state_obj) },
    { MP_ROM_QSTR(MP_QSTR_load), MP_ROM_PTR(&learner_load_obj) },
    { MP_ROM_QSTR(MP_QSTR_stats), MP_ROM_PTR(&learner_stats_obj) },
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
