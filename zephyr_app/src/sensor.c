// The sensor example: windows of accelerations, classified, and learned when somebody says what they are.
//
// The thread reads through Zephyr's sensor API and owns the window; the model belongs to the server's thread, which is
// handed whole windows. What the window must be like is asked of the model, so that any model with one input of x, y, z
// triples will do, pushed at any time.
#include <stdlib.h>
#include <zephyr/device.h>
#include <zephyr/drivers/sensor.h>
#include <zephyr/kernel.h>
#include <zephyr/logging/log.h>
#if defined(CONFIG_SHELL)
#include <zephyr/shell/shell.h>
#endif

#include "fieldloop_zephyr.h"

LOG_MODULE_REGISTER(fieldloop_sensor, LOG_LEVEL_INF);

#if !DT_NODE_EXISTS(DT_ALIAS(accel0))
#error "the devicetree needs the alias accel0; sensor.overlay has an emulated one"
#endif

#define AXES 3
#define MOST CONFIG_FIELDLOOP_APP_SENSOR_VALUES
#define NO_LABEL (-1)

static const struct device *const accel = DEVICE_DT_GET(DT_ALIAS(accel0));

typedef struct {
    float values[MOST]; // [count / AXES, AXES]
    uint32_t count;     // so far
    uint32_t want;      // as the model has it
    int label;          // what it is to be learned as, or NO_LABEL
} window_t;

static window_t window;
static atomic_t label = ATOMIC_INIT(NO_LABEL); // of the next whole window
static atomic_t restart;                       // it came while one was being filled, which may be of two motions

// What the shell shows; written by the sensor's thread alone.
static struct {
    atomic_t windows, learned, last;
} seen = {.last = ATOMIC_INIT(-1)};

// Values of the model's input; 0: there is none, or it is not for us.
static int ask_size(fl_server_t *s, void *arg) {
    ARG_UNUSED(arg);
    if (!s->has_model || s->model.input_count != 1) {
        return 0;
    }
    const fl_tensor_t *input = fl_model_input_info(&s->model, 0);
    uint32_t values = input->dtype == FL_F32 ? input->bytes / 4 : input->bytes;
    return values <= MOST && values % AXES == 0 ? (int)values : 0;
}

static int classify(fl_server_t *s, void *arg) {
    const window_t *w = arg;
    return fl_server_predict_f32(s, w->values, w->count, NULL, 0);
}

static int learn(fl_server_t *s, void *arg) {
    const window_t *w = arg;
    int result = fl_server_step_f32(s, w->values, w->count, (uint32_t)w->label, NULL);
    if (result < 0) {
        LOG_ERR("not learned: %s", s->text);
    }
    return result;
}

static void take(window_t *w) {
    int class = fl_zephyr_call(classify, w);
    if (class < 0) {
        return; // the model changed since the window began
    }
    if (class != (int)atomic_set(&seen.last, class)) {
        LOG_INF("class %d", class);
    }
    // With a restart it came while this window was being filled, and means the next. It is taken before it is used:
    // one that comes while the model learns is not lost.
    if (atomic_get(&restart) == 0) {
        w->label = (int)atomic_set(&label, NO_LABEL);
        if (w->label != NO_LABEL && fl_zephyr_call(learn, w) >= 0) {
            atomic_inc(&seen.learned);
        }
    }
    atomic_inc(&seen.windows);
}

static int read_axes(float xyz[AXES]) {
    struct sensor_value value[AXES];
    int error = sensor_sample_fetch(accel);
    if (error == 0) {
        error = sensor_channel_get(accel, SENSOR_CHAN_ACCEL_XYZ, value);
    }
    for (int i = 0; error == 0 && i < AXES; i++) {
        xyz[i] = sensor_value_to_float(&value[i]);
    }
    return error;
}

static void run(void *a, void *b, void *c) {
    ARG_UNUSED(a);
    ARG_UNUSED(b);
    ARG_UNUSED(c);
    if (!device_is_ready(accel)) {
        LOG_ERR("%s is not ready: no accelerations", accel->name);
        return;
    }
    int64_t next = k_uptime_ticks();
    for (;;) {
        next += CONFIG_SYS_CLOCK_TICKS_PER_SEC / CONFIG_FIELDLOOP_APP_SENSOR_HZ;
        k_sleep(K_TIMEOUT_ABS_TICKS(next));
        if (atomic_set(&restart, 0) != 0) {
            window.count = 0;
        }
        if (window.count == 0) {
            window.want = (uint32_t)MAX(fl_zephyr_call(ask_size, NULL), 0);
        }
        if (window.want == 0 || read_axes(&window.values[window.count]) != 0) {
            continue;
        }
        window.count += AXES;
        if (window.count == window.want) {
            take(&window);
            window.count = 0;
            next = k_uptime_ticks(); // learning took its time: the next window has no hole in it
        }
    }
}

K_THREAD_DEFINE(fieldloop_sensor, 2048, run, NULL, NULL, NULL, CONFIG_FIELDLOOP_APP_SENSOR_PRIORITY, 0, 0);

#if defined(CONFIG_FIELDLOOP_SHELL)
static int ask_classes(fl_server_t *s, void *arg) {
    ARG_UNUSED(arg);
    return s->has_learner ? (int)s->learner.classes : 0;
}

static int cmd_label(const struct shell *sh, size_t argc, char **argv) {
    ARG_UNUSED(argc);
    char *end;
    long number = strtol(argv[1], &end, 10);
    int classes = fl_zephyr_call(ask_classes, NULL);
    if (classes <= 0) {
        shell_error(sh, "no learner is open; open one first: fieldloop open");
        return -ENOENT;
    }
    if (*end != '\0' || end == argv[1] || number < 0 || number >= classes) {
        shell_error(sh, "label: expected 0 to %d, got %s", classes - 1, argv[1]);
        return -EINVAL;
    }
    atomic_set(&restart, 1);
    atomic_set(&label, (atomic_val_t)number);
    shell_print(sh, "the next whole window is learned as class %ld", number);
    return 0;
}

static int cmd_sensor(const struct shell *sh, size_t argc, char **argv) {
    ARG_UNUSED(argc);
    ARG_UNUSED(argv);
    if (window.want == 0) {
        shell_print(sh, "no windows: the active model does not take up to %d values in threes", MOST);
        return 0;
    }
    shell_print(sh, "window %ld: class %ld; %ld learned", atomic_get(&seen.windows), atomic_get(&seen.last),
        atomic_get(&seen.learned));
    return 0;
}

SHELL_SUBCMD_ADD((fieldloop), label, NULL, "label <n>: the model learns the sensor's next window.", cmd_label, 2, 0);
SHELL_SUBCMD_ADD((fieldloop), sensor, NULL, "What the sensor's last window was.", cmd_sensor, 1, 0);
#endif
