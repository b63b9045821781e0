// The life of the board: boot script, main.py, REPL, soft reset.
#include <string.h>
#include "py/compile.h"
#include "py/cstack.h"
#include "py/gc.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "extmod/vfs.h"
#include "shared/runtime/gchelper.h"
#include "shared/runtime/pyexec.h"
#include "shared/runtime/semihosting_arm.h"
#include "simflash.h"

extern uint8_t _estack, _stack_size, _heap_start, _heap_end;

// Kept free below the limit for C code that checks nothing, and for interrupts.
#define STACK_RESERVE (2048)

void port_main(void) __attribute__((noreturn));

// Tells the harness, and only it, that the machine started.
static void report_boot(void) {
    static char line[64];
    char *end = strcpy(line, "FIELDLOOP-BOOT ") + 15;
    end = port_put_hex(end, simflash_boots());
    end = strcpy(end, port_reset_cause() == 1 ? " power-on\n" : " reset\n");
    mp_semihosting_tx_strn(line, strlen(line));
}

void port_main(void) {
    mp_cstack_init_with_top(&_estack, (size_t)&_stack_size - STACK_RESERVE);
    simflash_init();
    report_boot();
    for (;;) {
        gc_init(&_heap_start, &_heap_end);
        mp_init();
        int ret = pyexec_frozen_module("_boot.py", false);
        mp_vfs_mount_romfs_protected(); // an empty partition mounts nothing
        if (!(ret & PYEXEC_FORCED_EXIT)) {
            ret = pyexec_file_if_exists("boot.py");
        }
        if (!(ret & PYEXEC_FORCED_EXIT) && pyexec_mode_kind == PYEXEC_MODE_FRIENDLY_REPL) {
            ret = pyexec_file_if_exists("main.py");
        }
        while (!(ret & PYEXEC_FORCED_EXIT)) {
            ret = pyexec_mode_kind == PYEXEC_MODE_RAW_REPL ? pyexec_raw_repl() : pyexec_friendly_repl();
        }
        mp_printf(&mp_plat_print, "MPY: soft reboot\n");
        gc_sweep_all();
        mp_deinit();
    }
}

void gc_collect(void) {
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    gc_collect_end();
}

void nlr_jump_fail(void *val) {
    (void)val;
    port_die("FIELDLOOP-FAULT uncaught exception");
}
