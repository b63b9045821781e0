// A learner's settings by name: those of fl_learner_config_t, choices as text, the mask as shares.
#include <stdio.h>
#include <string.h>

#include "server/server.h"

typedef enum { SETTING_U32, SETTING_FLOAT, SETTING_MASK } setting_kind_t;

typedef struct {
    const char *name;
    const char *const *choices; // in the order of their enumerators, NULL at the end; NULL: a number
    uint8_t kind;               // setting_kind_t
    uint8_t offset;
} setting_t;

static const char *const selectors[] = {
    "tinypropv2", "tinyprop", "dense", "topk", "random", "loss", "mask", "budget", NULL,
};
static const char *const skips[] = {"auto", "on", "off", NULL};
static const char *const units[] = {"element", "channel", NULL};
static const char *const ranks[] = {"error", "activation", NULL};
static const char *const searches[] = {"auto", "heap", "histogram", "threshold", NULL};
static const char *const bias_modes[] = {"topk", "dense", NULL};
static const char *const k_rules[] = {"integer", "trunc_f32", NULL};
static const char *const deltas_kinds[] = {"f32", "int16", NULL};
static const char *const weights_kinds[] = {"int8", "int16", "f32", NULL};
static const char *const optimizers[] = {"sgd", "momentum", "adam", NULL};

#define CHOICE(field, names) {#field, names, SETTING_U32, offsetof(fl_learner_config_t, field)}
#define NUMBER(field, kind) {#field, NULL, kind, offsetof(fl_learner_config_t, field)}
static const setting_t settings[] = {
    CHOICE(selector, selectors),
    CHOICE(skip, skips),
    CHOICE(unit, units),
    CHOICE(rank, ranks),
    CHOICE(search, searches),
    CHOICE(bias_mode, bias_modes),
    CHOICE(k_rule, k_rules),
    CHOICE(deltas, deltas_kinds),
    CHOICE(weights, weights_kinds),
    CHOICE(optimizer, optimizers),
    NUMBER(layers, SETTING_U32),
    NUMBER(floor, SETTING_U32),
    NUMBER(batch, SETTING_U32),
    NUMBER(max_step, SETTING_U32),
    NUMBER(s_min, SETTING_FLOAT),
    NUMBER(s_max, SETTING_FLOAT),
    NUMBER(zeta, SETTING_FLOAT),
    NUMBER(d_min, SETTING_FLOAT),
    NUMBER(d_max, SETTING_FLOAT),
    NUMBER(d_thr, SETTING_FLOAT),
    NUMBER(rho, SETTING_FLOAT),
    NUMBER(lr, SETTING_FLOAT),
    NUMBER(beta1, SETTING_FLOAT),
    NUMBER(beta2, SETTING_FLOAT),
    NUMBER(replays, SETTING_U32),
    NUMBER(memory, SETTING_U32),
    NUMBER(holdout, SETTING_U32),
    NUMBER(seed, SETTING_U32),
    NUMBER(mask, SETTING_MASK),
};

// The learner's own copy is written to the store as it is, so its layout is part of the record.
_Static_assert(sizeof(fl_learner_config_t) == 128, "packed settings have 32 words");

static int refuse(char text[FL_SERVER_TEXT], const setting_t *s, const char *why) {
    (void)snprintf(text, FL_SERVER_TEXT, "%s: %s", s->name, why);
    return FL_EINVAL;
}

static int set_mask(uint8_t *mask, fl_cbor_t at, const setting_t *s, char text[FL_SERVER_TEXT]) {
    uint8_t shares[FL_MAX_TRAINABLE] = {0};
    fl_cbor_item_t item;
    if (fl_cbor_next(&at, &item) != FL_OK || item.type != FL_CBOR_ARRAY) {
        return refuse(text, s, "expected an array of shares");
    }
    const size_t count = item.len;
    for (size_t i = 0; i < count; ++i) {
        if (fl_cbor_next(&at, &item) != FL_OK) {
            return refuse(text, s, "expected an array of shares");
        }
        if (item.type == FL_CBOR_BREAK) {
            break;
        }
        if (i >= FL_MAX_TRAINABLE) {
            return refuse(text, s, "more shares than a learner can train layers");
        }
        const float share = item.type == FL_CBOR_INT ? (float)item.i : item.type == FL_CBOR_FLOAT ? item.f : -1.0f;
        if (!(share >= 0.0f && share <= 1.0f)) {
            return refuse(text, s, "expected shares of 0 to 1");
        }
        shares[i] = (uint8_t)(share * 255.0f + 0.5f);
    }
    memcpy(mask, shares, sizeof(shares));
    return FL_OK;
}

static int set_choice(uint32_t *field, const fl_cbor_item_t *item, const setting_t *s, char text[FL_SERVER_TEXT]) {
    for (uint32_t i = 0; s->choices[i] != NULL; ++i) {
        if (strlen(s->choices[i]) == item->len && memcmp(s->choices[i], item->ptr, item->len) == 0) {
            *field = i;
            return FL_OK;
        }
    }
    (void)snprintf(text, FL_SERVER_TEXT, "%s: unknown choice '%.*s'", s->name, (int)(item->len < 32 ? item->len : 32),
        (const char *)item->ptr);
    return FL_EINVAL;
}

static int set_u32(uint32_t *field, const fl_cbor_item_t *item, const setting_t *s, char text[FL_SERVER_TEXT]) {
    const bool seed = strcmp(s->name, "seed") == 0; // any 32 bits, of whatever sign
    if (item->type != FL_CBOR_INT || item->i > UINT32_MAX) {
        return refuse(text, s, "expected a whole number of at most 32 bits");
    }
    if (item->i < 0 && !seed) {
        (void)snprintf(text, FL_SERVER_TEXT, "%s: expected 0 or more, got %ld", s->name,
            (long)(item->i < INT32_MIN ? INT32_MIN : item->i));
        return FL_EINVAL;
    }
    *field = (uint32_t)item->i;
    return FL_OK;
}

int fl_server_setting(fl_learner_config_t *config, const char *name, size_t name_len, fl_cbor_t value,
    char text[FL_SERVER_TEXT]) {
    fl_cbor_item_t item;
    fl_cbor_t at = value;
    if (fl_cbor_next(&at, &item) != FL_OK) {
        (void)snprintf(text, FL_SERVER_TEXT, "a setting without a value");
        return FL_EINVAL;
    }
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); ++i) {
        const setting_t *s = &settings[i];
        void *field = (uint8_t *)config + s->offset;
        if (strlen(s->name) != name_len || memcmp(s->name, name, name_len) != 0) {
            continue;
        }
        if (s->kind == SETTING_MASK) {
            return set_mask(field, value, s, text);
        }
        if (s->kind == SETTING_U32) {
            return s->choices != NULL && item.type == FL_CBOR_TEXT ? set_choice(field, &item, s, text)
                                                                   : set_u32(field, &item, s, text);
        }
        if (item.type != FL_CBOR_INT && item.type != FL_CBOR_FLOAT) {
            return refuse(text, s, "expected a number");
        }
        *(float *)field = item.type == FL_CBOR_INT ? (float)item.i : item.f;
        return FL_OK;
    }
    (void)snprintf(text, FL_SERVER_TEXT, "unknown setting '%.*s'; those of fl_learner_config_t are known",
        (int)(name_len < 32 ? name_len : 32), name);
    return FL_ENOENT;
}
