// A learner's settings as Python sees them: keywords and Learner.config have the names of fl_learner_config_t.
#include <string.h>

#include "mod_learner.h"

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

void fl_mp_learner_set(fl_learner_config_t *config, qstr name, mp_obj_t value) {
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

mp_obj_t fl_mp_learner_config(const fl_learner_config_t *config) {
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

qstr fl_mp_learner_selector(const fl_learner_config_t *config) {
    return choices[0][config->selector];
}
