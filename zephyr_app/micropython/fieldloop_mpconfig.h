// MicroPython's configuration for Zephyr, and what fieldloop wants different. prj.conf names this file.
#include "mpconfigport.h" // of the port

#include <string.h>
#include <zephyr/drivers/uart.h>

#if defined(CONFIG_FLASH_SIZE) && CONFIG_FLASH_SIZE > 0 && CONFIG_FLASH_SIZE <= 256
#define FIELDLOOP_SMALL (1)
#endif

// The digits of long integers as mpy-tool freezes them, also where 64 bits would allow larger ones.
#define MPZ_DIG_SIZE (16)

#if DT_NODE_EXISTS(DT_NODELABEL(romfs_partition))
#define MICROPY_VFS_ROM (1) // rom.c
#endif

#if FIELDLOOP_SMALL
// A part of 256 KB holds the interpreter, the core, the package and a model when it leaves out what they do not use.
#undef MICROPY_PY_MACHINE_I2C
#undef MICROPY_PY_MACHINE_SOFTI2C
#undef MICROPY_PY_MACHINE_SPI
#undef MICROPY_PY_MACHINE_SOFTSPI
#undef MICROPY_PY_MACHINE_PWM
#undef MICROPY_PY_ZSENSOR
#undef MICROPY_PY_HASHLIB
#undef MICROPY_PY_BUILTINS_HELP
#define MICROPY_PY_MATH (0) // floats, but neither sin() nor the 20 KB that come with it
#undef MICROPY_LONGINT_IMPL
#define MICROPY_LONGINT_IMPL (MICROPY_LONGINT_IMPL_LONGLONG)
#define MICROPY_FLOAT_USE_NATIVE_FLT16 (0)
#undef MICROPY_PERSISTENT_CODE_LOAD // of .mpy files; what is frozen does not need it
#define MICROPY_PY_ASYNC_AWAIT (0)
#define MICROPY_PY_MACHINE_SIGNAL (0)
#define MICROPY_PY_MACHINE_PULSE (0)
#define MICROPY_ERROR_REPORTING (MICROPY_ERROR_REPORTING_TERSE)
#endif

#if defined(CONFIG_ARCH_POSIX)
// native_sim computes in no time: its clock, and with it the thread that reads the serial ports, goes on only
// while the processor waits. So a loop in Python waits a microsecond every so often, and Ctrl-C ends it.
#define MICROPY_VM_HOOK_COUNT (256)
#define MICROPY_VM_HOOK_INIT static unsigned int vm_hook_divisor = MICROPY_VM_HOOK_COUNT;
#define MICROPY_VM_HOOK_POLL \
    if (--vm_hook_divisor == 0) { \
        vm_hook_divisor = MICROPY_VM_HOOK_COUNT; \
        k_busy_wait(10); \
    }
#define MICROPY_VM_HOOK_LOOP MICROPY_VM_HOOK_POLL
#define MICROPY_VM_HOOK_RETURN MICROPY_VM_HOOK_POLL
#endif

// A driver without `configure` runs at the speed of the devicetree: no reason for machine.UART to fail.
static inline int fieldloop_uart_configure(const struct device *uart, const struct uart_config *config) {
    int result = uart_configure(uart, config);
    return result == -ENOSYS || result == -ENOTSUP ? 0 : result;
}
#define uart_configure fieldloop_uart_configure

// And printing one must not read a configuration that nobody filled in.
static inline int fieldloop_uart_config_get(const struct device *uart, struct uart_config *config) {
    memset(config, 0, sizeof(*config));
    return uart_config_get(uart, config);
}
#define uart_config_get fieldloop_uart_config_get
