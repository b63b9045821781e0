// `fieldloop ...` on Zephyr's shell. Each command is one short call in the server's thread, which copies out what is
// to be shown; printing happens in the shell's own thread, so that a slow terminal never holds up the learner.
//
// Applications add commands of their own with SHELL_SUBCMD_ADD((fieldloop), ...).
#include <string.h>
#include <zephyr/kernel.h>
#include <zephyr/shell/shell.h>
#include <zephyr/sys/util.h>

#include "fieldloop/fl_cbor.h"
#include "fieldloop/fl_image.h"
#include "fieldloop_zephyr.h"
#include "server/job.h"

#include "shell_values.h"

#define SCORES 16 // of an output, shown
#define LABEL 24  // bytes of a class's name, NUL included

// A call in the server's thread, and why it failed: s->text may change as soon as another call runs.
typedef struct {
    int (*fn)(fl_server_t *s, void *arg);
    void *arg;
    char text[FL_SERVER_TEXT];
} call_t;

static int call_and_tell(fl_server_t *s, void *arg) {
    call_t *call = arg;
    s->text[0] = '\0';
    int result = call->fn(s, call->arg);
    if (result < 0) {
        strncpy(call->text, s->text, sizeof(call->text) - 1);
    }
    return result;
}

static int run(const struct shell *sh, int (*fn)(fl_server_t *s, void *arg), void *arg) {
    call_t call = {.fn = fn, .arg = arg};
    int result = fl_zephyr_call(call_and_tell, &call);
    if (result < 0) {
        shell_error(sh, "%s (error %d)", call.text[0] != '\0' ? call.text : "the device server does not run", result);
    }
    return result;
}

// ---- samples: the bytes themselves, or one that travels with the model

typedef struct {
    bool carried;
    uint32_t index; // of a carried one
    const uint8_t *bytes;
    size_t count;
} sample_t;

// `argv`: "sample" and a number, or the bytes in hexadecimal, which are decoded where they stand.
static int read_sample(const struct shell *sh, size_t argc, char **argv, sample_t *sample) {
    if (strcmp(argv[0], "sample") == 0) {
        sample->carried = true;
        if (argc == 2 && fl_shell_number(argv[1], &sample->index)) {
            return 0;
        }
        shell_error(sh, "sample: expected the number of a sample of the model's, 0, 1, 2...; for example: sample 3");
        return -EINVAL;
    }
    size_t digits = strlen(argv[0]);
    sample->carried = false;
    sample->bytes = (const uint8_t *)argv[0];
    sample->count = digits % 2 == 0 ? hex2bin(argv[0], digits, (uint8_t *)argv[0], digits / 2) : 0;
    if (argc > 1 || sample->count == 0) {
        shell_error(sh, "expected a sample as pairs of hexadecimal digits, a byte each, or: sample N");
        return -EINVAL;
    }
    return 0;
}

static int sample_bytes(fl_server_t *s, const sample_t *sample, const int8_t **x, size_t *x_bytes) {
    *x = (const int8_t *)sample->bytes;
    *x_bytes = sample->count;
    if (!sample->carried) {
        return FL_OK;
    }
    if (fl_server_need_model(s) < 0) {
        return FL_ENOENT;
    }
    const fl_job_samples_t set = fl_job_samples(s);
    if (set.count == 0) {
        return fl_server_refuse(s, FL_ENOENT, "the model carries no samples; compile it with a rehearsal set");
    }
    if (sample->index >= set.count) {
        return fl_server_refuse(s, FL_EINVAL, "sample: 0 to %u expected, got %u", (unsigned)set.count - 1,
            (unsigned)sample->index);
    }
    *x_bytes = set.sample_bytes;
    *x = set.samples + (size_t)sample->index * set.sample_bytes;
    return FL_OK;
}

// strnlen() is no C99.
static size_t length(const char *at, const char *end) {
    const char *nul = memchr(at, '\0', (size_t)(end - at));
    return (size_t)((nul != NULL ? nul : end) - at);
}

// The name of a class in the model; "" where it has none.
static void label_of(const fl_server_t *s, uint32_t class, char label[LABEL]) {
    uint32_t cursor = 0, bytes;
    const void *section;
    label[0] = '\0';
    if (fl_image_section(s->model.image, FL_SECTION_LABELS, &cursor, &section, &bytes) != FL_OK || bytes < 4) {
        return;
    }
    const char *at = (const char *)section + 4, *end = (const char *)section + bytes;
    for (uint32_t i = 0; i < class && at < end; i++) {
        at += length(at, end) + 1;
    }
    if (at < end) {
        size_t n = MIN(length(at, end), LABEL - 1);
        memcpy(label, at, n);
        label[n] = '\0';
    }
}

// ---- info

typedef struct {
    bool has_model, has_learner, running;
    char slot[FL_SERVER_NAME];
    uint8_t sha[4];
    uint32_t image_bytes, x_bytes, y_bytes, seq, restored;
    fl_learner_stats_t stats;
    uint32_t memory_used, memory_bytes, job, done, of;
    char fault[FL_SERVER_TEXT];
} info_t;

static int take_info(fl_server_t *s, void *arg) {
    info_t *info = arg;
    uint8_t *at;
    info->has_model = s->has_model;
    info->has_learner = s->has_learner;
    info->memory_bytes = s->config->memory_bytes;
    info->memory_used = info->memory_bytes - fl_server_spare(s, &at);
    if (s->has_model) {
        strncpy(info->slot, s->config->slots[s->active].name, sizeof(info->slot) - 1);
        memcpy(info->sha, s->sha, sizeof(info->sha));
        info->image_bytes = s->image_bytes;
        info->x_bytes = fl_model_input_info(&s->model, 0)->bytes;
        info->y_bytes = fl_model_output_info(&s->model, 0)->bytes;
    }
    if (s->has_learner) {
        info->stats = *fl_learner_stats(&s->learner);
        info->seq = s->seq;
    }
    info->running = fl_server_busy(s);
    info->job = s->job.id;
    info->done = s->job.done;
    info->of = s->job.of;
    memcpy(info->fault, s->fault, sizeof(info->fault));
    return FL_OK;
}

typedef struct {
    uint32_t index, bytes, image_bytes;
    char name[FL_SERVER_NAME];
} slot_t;

static int take_slot(fl_server_t *s, void *arg) {
    slot_t *slot = arg;
    if (slot->index >= s->config->slot_count) {
        return 0;
    }
    strncpy(slot->name, s->config->slots[slot->index].name, sizeof(slot->name) - 1);
    slot->bytes = fl_server_slot_bytes(s, slot->index);
    slot->image_bytes = fl_server_image_in(s, slot->index);
    return 1;
}

static int cmd_info(const struct shell *sh, size_t argc, char **argv) {
    ARG_UNUSED(argc);
    ARG_UNUSED(argv);
    info_t info = {0};
    if (run(sh, take_info, &info) < 0) {
        return -EIO;
    }
    if (info.has_model) {
        shell_print(sh, "model    %s, %u bytes, sha256 %02x%02x%02x%02x..., input %u bytes, output %u", info.slot,
            info.image_bytes, info.sha[0], info.sha[1], info.sha[2], info.sha[3], info.x_bytes, info.y_bytes);
    } else {
        shell_print(sh, "model    none; push one: fieldloop push model.flm --port ...");
    }
    if (info.has_learner) {
        shell_print(sh, "learner  from commit %u; %u samples seen, %u trained, %u skipped, %u remembered", info.seq,
            info.stats.samples, info.stats.trained, info.stats.skipped, info.stats.remembered);
    } else {
        shell_print(sh, "learner  none; open one: fieldloop open");
    }
    if (info.running) {
        shell_print(sh, "job      %u at %u of %u", info.job, info.done, info.of);
    }
    shell_print(sh, "memory   %u of %u bytes", info.memory_used, info.memory_bytes);
    for (slot_t slot = {0}; fl_zephyr_call(take_slot, &slot) > 0; slot.index++) {
        if (slot.image_bytes > 0) {
            shell_print(sh, "slot     %s, %u bytes, image of %u", slot.name, slot.bytes, slot.image_bytes);
        } else {
            shell_print(sh, "slot     %s, %u bytes, empty", slot.name, slot.bytes);
        }
    }
#if defined(CONFIG_ARCH_POSIX)
    shell_print(sh, "stack    not known: native_sim's threads run on the host's stacks");
#else
    shell_print(sh, "stack    %u of %u bytes used at most", (unsigned)(fl_zephyr_stack_size() - fl_zephyr_stack_unused()),
        (unsigned)fl_zephyr_stack_size());
#endif
    if (info.fault[0] != '\0') {
        shell_print(sh, "fault    %s", info.fault);
    }
    return 0;
}

// ---- predict, learn

typedef struct {
    sample_t sample;
    uint32_t label;
    int8_t scores[SCORES];
    uint32_t score_count;
    fl_step_t step;
    uint32_t right; // learn: the class was the label's
    char name[LABEL];
} request_t;

static int predict(fl_server_t *s, void *arg) {
    request_t *r = arg;
    const int8_t *x;
    size_t x_bytes;
    int result = sample_bytes(s, &r->sample, &x, &x_bytes);
    if (result < 0) {
        return result;
    }
    uint32_t outputs = s->has_model ? fl_model_output_info(&s->model, 0)->bytes : 0;
    bool shown = outputs <= SCORES;
    result = fl_server_predict(s, x, x_bytes, shown ? r->scores : NULL, shown ? outputs : 0);
    r->score_count = shown ? outputs : 0;
    if (result >= 0) {
        label_of(s, (uint32_t)result, r->name);
    }
    return result;
}

static int cmd_predict(const struct shell *sh, size_t argc, char **argv) {
    request_t r = {0};
    int class = read_sample(sh, argc - 1, argv + 1, &r.sample);
    if (class < 0 || (class = run(sh, predict, &r)) < 0) {
        return class;
    }
    shell_fprintf(sh, SHELL_NORMAL, "class %d", class);
    if (r.name[0] != '\0') {
        shell_fprintf(sh, SHELL_NORMAL, " (%s)", r.name);
    }
    shell_fprintf(sh, SHELL_NORMAL, r.score_count > 0 ? ", scores" : "");
    for (uint32_t i = 0; i < r.score_count; i++) {
        shell_fprintf(sh, SHELL_NORMAL, " %d", r.scores[i]);
    }
    shell_fprintf(sh, SHELL_NORMAL, "\n");
    return 0;
}

static int learn(fl_server_t *s, void *arg) {
    request_t *r = arg;
    const int8_t *x;
    size_t x_bytes;
    int result = sample_bytes(s, &r->sample, &x, &x_bytes);
    return result < 0 ? result : fl_server_step(s, x, x_bytes, r->label, &r->step);
}

static int cmd_learn(const struct shell *sh, size_t argc, char **argv) {
    request_t r = {0};
    if (!fl_shell_number(argv[1], &r.label)) {
        shell_error(sh, "learn: expected the number of a class before the sample, got %s", argv[1]);
        return -EINVAL;
    }
    int result = read_sample(sh, argc - 2, argv + 2, &r.sample);
    if (result < 0 || (result = run(sh, learn, &r)) < 0) {
        return result;
    }
    // 2 (1 - p): shown as the probability of the label, in percent
    int percent = (int)(100.0f - 50.0f * r.step.error + 0.5f);
    shell_print(sh, "was class %u, p(%u) %d %%, %s", r.step.predicted, r.label, percent,
        r.step.trained ? "learned" : "skipped: known well enough");
    return 0;
}

// ---- open, commit, undo, reset

typedef struct {
    size_t count;
    char **settings; // name=value
} settings_t;

static int open_learner(fl_server_t *s, void *arg) {
    const settings_t *given = arg;
    fl_learner_config_t config;
    fl_learner_defaults(&config);
    for (size_t i = 0; i < given->count; i++) {
        const char *name = given->settings[i], *equals = strchr(name, '=');
        uint8_t buf[1 + 5 * FL_MAX_TRAINABLE]; // a mask of floats; and a name, which is shorter
        fl_cbor_w_t w;
        fl_cbor_w_init(&w, buf, sizeof(buf));
        if (equals == NULL || !fl_shell_value(equals + 1, &w)) {
            return fl_server_refuse(s, FL_EINVAL, "expected settings as name=value, got %s", name);
        }
        int result = fl_server_setting(&config, name, (size_t)(equals - name), fl_cbor_over(buf, w.len), s->text);
        if (result < 0) {
            return result;
        }
    }
    return fl_server_learner_open(s, &config);
}

static int cmd_open(const struct shell *sh, size_t argc, char **argv) {
    settings_t given = {argc - 1, argv + 1};
    int result = run(sh, open_learner, &given);
    if (result >= 0) {
        shell_print(sh, "a learner is open");
    }
    return MIN(result, 0);
}

static int commit(fl_server_t *s, void *arg) {
    return fl_server_commit(s, arg);
}

static int undo(fl_server_t *s, void *arg) {
    return fl_server_undo(s, arg);
}

static int reset(fl_server_t *s, void *arg) {
    return fl_server_reset(s, arg);
}

static int keep(const struct shell *sh, int (*fn)(fl_server_t *s, void *arg), const char *what) {
    uint32_t seq;
    int result = run(sh, fn, &seq);
    if (result >= 0) {
        shell_print(sh, "%s; record %u", what, seq);
    }
    return MIN(result, 0);
}

static int cmd_commit(const struct shell *sh, size_t argc, char **argv) {
    ARG_UNUSED(argc);
    ARG_UNUSED(argv);
    return keep(sh, commit, "what was learned is kept");
}

static int cmd_undo(const struct shell *sh, size_t argc, char **argv) {
    ARG_UNUSED(argc);
    ARG_UNUSED(argv);
    return keep(sh, undo, "as at the commit before");
}

static int cmd_reset(const struct shell *sh, size_t argc, char **argv) {
    ARG_UNUSED(argc);
    ARG_UNUSED(argv);
    return keep(sh, reset, "the factory's weights are back");
}

SHELL_SUBCMD_SET_CREATE(fieldloop_commands, (fieldloop));
SHELL_SUBCMD_ADD((fieldloop), info, NULL, "Model, learner, memory, slots and stack.", cmd_info, 1, 0);
SHELL_SUBCMD_ADD((fieldloop), predict, NULL, "predict <hex bytes>|sample <n>: the class of a sample.", cmd_predict, 2, 1);
SHELL_SUBCMD_ADD((fieldloop), learn, NULL, "learn <label> <hex bytes>|sample <n>: a step on a sample.", cmd_learn, 3, 1);
SHELL_SUBCMD_ADD((fieldloop), open, NULL, "open [name=value...]: a learner with these settings, lr=0.5 for example.",
    cmd_open, 1, 12);
SHELL_SUBCMD_ADD((fieldloop), commit, NULL, "Keeps what was learned.", cmd_commit, 1, 0);
SHELL_SUBCMD_ADD((fieldloop), undo, NULL, "Back to the commit before.", cmd_undo, 1, 0);
SHELL_SUBCMD_ADD((fieldloop), reset, NULL, "Back to the factory's weights.", cmd_reset, 1, 0);
SHELL_CMD_REGISTER(fieldloop, &fieldloop_commands, "A model that learns here.", NULL);
