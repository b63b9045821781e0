// An accelerometer that plays motions, behind Zephyr's sensor API: fieldloop,emul-accel.
#define DT_DRV_COMPAT fieldloop_emul_accel

#include <stdlib.h>
#include <string.h>
#include <zephyr/drivers/sensor.h>
#include <zephyr/kernel.h>
#if defined(CONFIG_SHELL)
#include <zephyr/shell/shell.h>
#endif

#include "motion.h"

typedef struct {
    uint32_t dwell_ms;
} emul_config_t;

typedef struct {
    float xyz[3];
    uint32_t readings; // seeds the noise
} emul_data_t;

// The motion that all of them play; below 0: one after the other. Written by the shell, read by whoever fetches.
static atomic_t pinned = ATOMIC_INIT(-1);

static int sample_fetch(const struct device *device, enum sensor_channel channel) {
    const emul_config_t *config = device->config;
    emul_data_t *data = device->data;
    if (channel != SENSOR_CHAN_ALL && channel != SENSOR_CHAN_ACCEL_XYZ) {
        return -ENOTSUP;
    }
    uint32_t now = k_uptime_get_32();
    int played = (int)atomic_get(&pinned);
    uint32_t motion = played < 0 ? now / MAX(config->dwell_ms, 1) % MOTION_COUNT : (uint32_t)played;
    motion_at(motion, now, data->readings++, data->xyz);
    return 0;
}

static int channel_get(const struct device *device, enum sensor_channel channel, struct sensor_value *value) {
    const emul_data_t *data = device->data;
    int first = channel == SENSOR_CHAN_ACCEL_XYZ ? 0 : (int)channel - (int)SENSOR_CHAN_ACCEL_X;
    int count = channel == SENSOR_CHAN_ACCEL_XYZ ? 3 : 1;
    if (first < 0 || first > 2) {
        return -ENOTSUP;
    }
    for (int i = 0; i < count; i++) {
        (void)sensor_value_from_float(&value[i], data->xyz[first + i]);
    }
    return 0;
}

static DEVICE_API(sensor, api) = {.sample_fetch = sample_fetch, .channel_get = channel_get};

#define EMULATED(n)                                                                                                    \
    static const emul_config_t config_##n = {.dwell_ms = DT_INST_PROP(n, dwell_ms)};                                   \
    static emul_data_t data_##n;                                                                                       \
    SENSOR_DEVICE_DT_INST_DEFINE(n, NULL, NULL, &data_##n, &config_##n, POST_KERNEL, CONFIG_SENSOR_INIT_PRIORITY, &api);

DT_INST_FOREACH_STATUS_OKAY(EMULATED)

#if defined(CONFIG_FIELDLOOP_SHELL)
static int cmd_motion(const struct shell *sh, size_t argc, char **argv) {
    ARG_UNUSED(argc);
    char *end;
    long motion = strtol(argv[1], &end, 10);
    if (strcmp(argv[1], "auto") == 0) {
        motion = -1;
    } else if (*end != '\0' || end == argv[1] || motion < 0 || motion >= MOTION_COUNT) {
        shell_error(sh, "motion: expected auto or 0 to %d, got %s", MOTION_COUNT - 1, argv[1]);
        return -EINVAL;
    }
    atomic_set(&pinned, (atomic_val_t)motion);
    return 0;
}

SHELL_SUBCMD_ADD((fieldloop), motion, NULL, "motion auto|<n>: what the emulated accelerometer plays.", cmd_motion, 2, 0);
#endif
