// What the firmware itself asks: its shell, its sensors. Also how the server is opened.
#include <string.h>

#include "fieldloop/fl_quantize.h"
#include "server/server.h"

static bool is_sound(const fl_server_config_t *c) {
    if (c->slots == NULL || c->slot_count == 0 || c->store == NULL || c->memory == NULL || c->board == NULL ||
        c->os == NULL || (uintptr_t)c->memory % FL_IMAGE_ALIGN != 0 || c->buf_bytes < 256 || c->buf_bytes > 65535 ||
        c->group < 64 || c->group > 255 || (c->count_begin == NULL) != (c->count_end == NULL)) {
        return false;
    }
    for (uint32_t i = 0; i < c->slot_count; ++i) {
        const fl_server_slot_t *slot = &c->slots[i];
        if (slot->name == NULL || slot->name[0] == '\0' || strlen(slot->name) >= FL_SERVER_NAME ||
            slot->flash == NULL || fl_flash_check(slot->flash, 1) != FL_OK || slot->bytes == NULL ||
            (uintptr_t)slot->bytes % FL_IMAGE_ALIGN != 0) {
            return false;
        }
    }
    return fl_flash_check(c->store, 2) == FL_OK;
}

int fl_server_open(fl_server_t *s, const fl_server_config_t *config) {
    memset(s, 0, sizeof(*s));
    s->paint = -1;
    if (!is_sound(config)) {
        return FL_EINVAL;
    }
    s->config = config;
    fl_session_init(&s->session, config->boot, s->kept, sizeof(s->kept));
    const int error = fl_store_mount(&s->store, config->store, NULL, 0);
    if (error) {
        (void)fl_server_store_refuse(s, error);
        memcpy(s->fault, s->text, sizeof(s->fault));
        return error;
    }
    fl_server_open_active(s);
    return FL_OK;
}

// ---- predictions

static int check_one(fl_server_t *s, size_t bytes, size_t y_bytes, bool wants_y) {
    uint32_t count;
    int error = fl_server_samples(s, bytes, &count);
    if (error) {
        return error;
    }
    const uint32_t in = fl_model_input_info(&s->model, 0)->bytes;
    const uint32_t out = fl_model_output_info(&s->model, 0)->bytes;
    if (count != 1) {
        return fl_server_refuse(s, FL_EINVAL, "x: expected one sample of %u values, got %u", (unsigned)in,
            (unsigned)bytes);
    }
    if (wants_y && y_bytes < out) {
        return fl_server_refuse(s, FL_EINVAL, "y: expected room for %u bytes, got %u", (unsigned)out,
            (unsigned)y_bytes);
    }
    return FL_OK;
}

// The sample lies in the model's input.
static int run(fl_server_t *s, int8_t *y) {
    const int best = fl_server_run(s);
    if (best >= 0 && y != NULL) {
        memcpy(y, fl_model_output(&s->model, 0), fl_model_output_info(&s->model, 0)->bytes);
    }
    return best;
}

int fl_server_predict(fl_server_t *s, const int8_t *x, size_t x_bytes, int8_t *y, size_t y_bytes) {
    const int error = check_one(s, x_bytes, y_bytes, y != NULL);
    if (error) {
        return error;
    }
    memcpy(fl_model_input(&s->model, 0), x, x_bytes);
    return run(s, y);
}

// A byte stands for every real value, but for none that is not a finite number.
static int check_finite(fl_server_t *s, const float *x, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        if (x[i] - x[i] != 0.0f) {
            return fl_server_refuse(s, FL_EDOM, "x: value %u is not a finite number", (unsigned)i);
        }
    }
    return FL_OK;
}

int fl_server_predict_f32(fl_server_t *s, const float *x, size_t count, int8_t *y, size_t y_bytes) {
    int error = check_one(s, count, y_bytes, y != NULL); // an int8 value has one byte
    error = error ? error : check_finite(s, x, count);
    if (error) {
        return error;
    }
    fl_quantize(fl_model_input_info(&s->model, 0), x, fl_model_input(&s->model, 0), count);
    return run(s, y);
}

// ---- learning

static int check_step(fl_server_t *s, size_t x_bytes, uint32_t label) {
    int error = fl_server_need_no_job(s, false);
    error = error ? error : fl_server_need_learner(s);
    error = error ? error : check_one(s, x_bytes, 0, false);
    if (error == FL_OK && label >= s->learner.classes) {
        error = fl_server_refuse(s, FL_EINVAL, "label: expected 0..%u, got %u", (unsigned)s->learner.classes - 1,
            (unsigned)label);
    }
    return error;
}

static int learn(fl_server_t *s, const int8_t *x, uint32_t label, fl_step_t *step) {
    const int error = fl_learner_step(&s->learner, x, label, step);
    return error ? fl_server_refuse(s, error, "the sample was not learned; nothing changed") : FL_OK;
}

int fl_server_step(fl_server_t *s, const int8_t *x, size_t x_bytes, uint32_t label, fl_step_t *step) {
    const int error = check_step(s, x_bytes, label);
    return error ? error : learn(s, x, label, step);
}

int fl_server_step_f32(fl_server_t *s, const float *x, size_t count, uint32_t label, fl_step_t *step) {
    int error = check_step(s, count, label);
    if (error) {
        return error;
    }
    uint8_t *q; // the learner wants the sample again after it ran, so it cannot lie in the model's input
    const uint32_t room = fl_server_spare(s, &q);
    if (room < count) {
        return fl_server_lacks(s, FL_ENOMEM, (uint32_t)count, room, "a quantised sample");
    }
    error = fl_learner_quantize(&s->learner, x, (int8_t *)q);
    if (error) {
        return fl_server_refuse(s, error, "x: a value is not a finite number; the sample was refused");
    }
    return learn(s, (const int8_t *)q, label, step);
}
