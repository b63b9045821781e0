// The one owner of the device server: a thread that answers calls, and learns while there are none.
#include <stdio.h>
#include <zephyr/kernel.h>
#include <zephyr/logging/log.h>
#include <zephyr/random/random.h>
#include <zephyr/storage/flash_map.h>
#include <zephyr/version.h>

#include "fieldloop_zephyr.h"
#include "port.h"

LOG_MODULE_REGISTER(fieldloop, CONFIG_FIELDLOOP_LOG_LEVEL);

#if defined(CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE)
// `info` tells of a receive buffer, in which a message has FL_DEFRAME_EXTRA less.
#define BUF_BYTES (CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE + FL_DEFRAME_EXTRA)
#else
#define BUF_BYTES 1024
#endif

// `info` of a model takes about 300.
BUILD_ASSERT(BUF_BYTES >= 324 && BUF_BYTES <= 65535, "CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE: expected 320 to 65531");
BUILD_ASSERT(CONFIG_FIELDLOOP_THREAD_PRIORITY <= K_LOWEST_APPLICATION_THREAD_PRIO,
    "CONFIG_FIELDLOOP_THREAD_PRIORITY: expected less than CONFIG_NUM_PREEMPT_PRIORITIES, the idle thread's");
BUILD_ASSERT(FIXED_PARTITION_EXISTS(model0_partition) && FIXED_PARTITION_EXISTS(store_partition),
    "the devicetree needs the partitions model0_partition and store_partition");
#define SLOTS (1 + FIXED_PARTITION_EXISTS(model1_partition))

typedef struct {
    void *fifo; // the kernel's
    fl_zephyr_fn_t fn;
    void *arg;
    int result;
    struct k_sem done;
} call_t;

static K_FIFO_DEFINE(calls);
static K_THREAD_STACK_DEFINE(stack, CONFIG_FIELDLOOP_THREAD_STACK_SIZE);
static struct k_thread thread;
static uint8_t memory[CONFIG_FIELDLOOP_MEMORY_BYTES] __aligned(16);
static fl_flash_t slot_flash[SLOTS], store_flash;
static fl_server_slot_t slots[SLOTS];
static fl_server_config_t config;
static fl_server_t server;
static bool opened;

__weak uint32_t fl_zephyr_boot_id(void) {
    uint32_t id = k_cycle_get_32() * 0x9E3779B1u;
#if defined(CONFIG_ENTROPY_HAS_DRIVER) || defined(CONFIG_TEST_RANDOM_GENERATOR)
    id ^= sys_rand32_get();
#endif
    return id;
}

__weak bool fl_zephyr_count_begin(void) {
    return false;
}

__weak uint64_t fl_zephyr_count_end(void) {
    return 0;
}

static bool count_begin(void *ctx) {
    ARG_UNUSED(ctx);
    return fl_zephyr_count_begin();
}

static uint64_t count_end(void *ctx) {
    ARG_UNUSED(ctx);
    return fl_zephyr_count_end();
}

#if defined(CONFIG_FIELDLOOP_SMP_UART)
static void port_counters(void *ctx, uint32_t counters[4]) {
    ARG_UNUSED(ctx);
    fl_zephyr_smp_uart_counters(counters);
}
#endif

static bool open_flash(fl_flash_t *flash, uint8_t id, const char *label) {
    int error = fl_zephyr_flash_open(flash, id);
    if (error != FL_OK) {
        LOG_ERR("partition %s cannot be used: error %d; its flash must be ready, with pages of one size, write blocks "
            "of %d bytes at most and 0xFF where erased", label, error, FL_FLASH_PROG_MAX);
    }
    return error == FL_OK;
}

static bool open_slot(uint32_t i, uint8_t id, const char *name) {
    const struct flash_area *area;
    if (!open_flash(&slot_flash[i], id, name) || flash_area_open(id, &area) != 0) {
        return false;
    }
    const uint8_t *bytes = fl_zephyr_flash_bytes(area);
    if (bytes == NULL || (uintptr_t)bytes % 16 != 0) {
        LOG_ERR("partition %s is not memory at a multiple of 16 bytes, got %p: a model runs where it lies; "
            "define fl_zephyr_flash_bytes() for this flash", name, (const void *)bytes);
        return false;
    }
    slots[i] = (fl_server_slot_t){.name = name, .flash = &slot_flash[i], .bytes = bytes};
    return true;
}

static bool open_server(void) {
    if (!open_slot(0, FIXED_PARTITION_ID(model0_partition), "model0") ||
        !open_flash(&store_flash, FIXED_PARTITION_ID(store_partition), "store")) {
        return false;
    }
#if FIXED_PARTITION_EXISTS(model1_partition)
    if (!open_slot(1, FIXED_PARTITION_ID(model1_partition), "model1")) {
        return false;
    }
#endif
    config = (fl_server_config_t){
        .slots = slots,
        .slot_count = SLOTS,
        .store = &store_flash,
        .memory = memory,
        .memory_bytes = sizeof(memory),
        .board = CONFIG_BOARD_TARGET,
        .os = "zephyr " KERNEL_VERSION_STRING,
        .boot = fl_zephyr_boot_id(),
        .buf_bytes = BUF_BYTES,
        .group = CONFIG_FIELDLOOP_GROUP,
        .count_begin = count_begin,
        .count_end = count_end,
#if defined(CONFIG_FIELDLOOP_SMP_UART)
        .port_counters = port_counters,
#endif
    };
    int error = fl_server_open(&server, &config);
    if (error != FL_OK) {
        LOG_ERR("%s", server.text[0] != '\0' ? server.text : "the server cannot be opened with this configuration");
    } else if (server.fault[0] != '\0') {
        LOG_WRN("%s", server.fault);
    }
    return error != FL_EINVAL; // without a store it answers all the same, and says so
}

static void take(call_t *call) {
    call->result = opened ? call->fn(&server, call->arg) : FL_EIO;
    k_sem_give(&call->done);
}

static void run(void *a, void *b, void *c) {
    ARG_UNUSED(a);
    ARG_UNUSED(b);
    ARG_UNUSED(c);
    opened = open_server();
    for (;;) {
        bool busy = opened && fl_server_busy(&server);
        call_t *call = k_fifo_get(&calls, busy ? K_NO_WAIT : K_FOREVER);
        if (call != NULL) {
            take(call);
        }
        // Also after a call: somebody who asks all the time must not keep a job waiting.
        if (opened && fl_server_busy(&server)) {
            fl_server_advance(&server);
#if defined(CONFIG_ARCH_POSIX)
            k_sleep(K_TICKS(1)); // no time passes there while a thread computes, and the ports are looked at in time
#else
            k_yield(); // the shell and the log may have the same priority
#endif
        }
    }
}

int fl_zephyr_call(fl_zephyr_fn_t fn, void *arg) {
    call_t call = {.fn = fn, .arg = arg};
    if (k_current_get() == &thread) {
        return opened ? fn(&server, arg) : FL_EIO;
    }
    k_sem_init(&call.done, 0, 1);
    k_fifo_put(&calls, &call);
    k_sem_take(&call.done, K_FOREVER);
    return call.result;
}

size_t fl_zephyr_stack_size(void) {
    return K_THREAD_STACK_SIZEOF(stack);
}

size_t fl_zephyr_stack_unused(void) {
    size_t unused = 0;
#if defined(CONFIG_INIT_STACKS) && defined(CONFIG_THREAD_STACK_INFO)
    if (k_thread_stack_space_get(&thread, &unused) != 0) {
        return 0;
    }
#endif
    return unused;
}

static int start(void) {
    k_tid_t id = k_thread_create(&thread, stack, K_THREAD_STACK_SIZEOF(stack), run, NULL, NULL, NULL,
        K_PRIO_PREEMPT(CONFIG_FIELDLOOP_THREAD_PRIORITY), K_FP_REGS, K_NO_WAIT);
    k_thread_name_set(id, "fieldloop");
    return 0;
}

SYS_INIT(start, APPLICATION, CONFIG_APPLICATION_INIT_PRIORITY);
