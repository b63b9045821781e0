// SMP over a UART of our own: both framings of docs/SPEC-link.md, told apart by their first bytes.
//
// Zephyr's own UART transport takes console lines only, and a line for each interrupt's worth of buffers. This one
// takes bytes: from the interrupt through a ring to a thread, or, where the driver has no interrupts (native_sim),
// by looking. The thread puts messages together and hands each to MCUmgr in a net_buf that remembers how it came.
//
//     interrupt --ring--> thread: fl_deframe --net_buf--> MCUmgr's work queue --net_buf--> send() --interrupt--> out
#include <string.h>
#include <zephyr/device.h>
#include <zephyr/drivers/uart.h>
#include <zephyr/init.h>
#include <zephyr/kernel.h>
#include <zephyr/logging/log.h>
#include <zephyr/mgmt/mcumgr/smp/smp.h>
#include <zephyr/mgmt/mcumgr/transport/smp.h>
#include <zephyr/net_buf.h>
#include <zephyr/sys/ring_buffer.h>

#include <mgmt/mcumgr/transport/smp_internal.h>

#include "fieldloop/fl_link.h"
#include "port.h"

LOG_MODULE_DECLARE(fieldloop, CONFIG_FIELDLOOP_LOG_LEVEL);

BUILD_ASSERT(DT_HAS_CHOSEN(fieldloop_uart), "the devicetree's `chosen` needs fieldloop,uart");
#define IS_OURS(chosen) \
    COND_CODE_1(DT_HAS_CHOSEN(chosen), (DT_SAME_NODE(DT_CHOSEN(chosen), DT_CHOSEN(fieldloop_uart))), (0))
BUILD_ASSERT(!(IS_ENABLED(CONFIG_UART_CONSOLE) && IS_OURS(zephyr_console)) &&
                 !(IS_ENABLED(CONFIG_SHELL_BACKEND_SERIAL) && IS_OURS(zephyr_shell_uart)) &&
                 !(IS_ENABLED(CONFIG_MCUMGR_TRANSPORT_UART) && IS_OURS(zephyr_uart_mcumgr)),
    "fieldloop,uart is the console's, the shell's or MCUmgr's own UART; choose another, or MCUMGR_TRANSPORT_SHELL");
BUILD_ASSERT(CONFIG_MCUMGR_TRANSPORT_NETBUF_USER_DATA_SIZE >= 1, "a buffer remembers the framing it came in");

// A reader may be gone: what is not taken within this time is dropped.
#define PATIENCE K_MSEC(2000)
// How long a message waits for a buffer before it counts as lost; the client sends it again.
#define BUFFER_MS 100
// Bytes within this time mean that more will come soon.
#define LIVELY_MS 250

static const struct device *const uart = DEVICE_DT_GET(DT_CHOSEN(fieldloop_uart));
static struct smp_transport transport;
static K_THREAD_STACK_DEFINE(stack, CONFIG_FIELDLOOP_SMP_UART_STACK_SIZE);
static struct k_thread thread;

static fl_deframe_t deframe;
static uint8_t deframe_buf[CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE + FL_DEFRAME_EXTRA];
static fl_framing_t spoken = FL_FRAMING_CONSOLE; // that of the last message understood
static uint32_t lost;                            // bytes, and messages, that nobody could take

static bool by_interrupt;
RING_BUF_DECLARE(ring, CONFIG_FIELDLOOP_SMP_UART_RING);
static K_SEM_DEFINE(arrived, 0, 1);

static K_MUTEX_DEFINE(sending); // replies, and the word about a damaged frame
static K_SEM_DEFINE(sent, 0, 1);
static const uint8_t *volatile out;
static volatile size_t out_left;

void fl_zephyr_smp_uart_counters(uint32_t counters[4]) {
    counters[0] = deframe.frames;
    counters[1] = deframe.bad;
    counters[2] = deframe.noise;
    counters[3] = lost;
}

// ---- bytes

static void receive_some(void) {
    uint8_t *to;
    for (;;) {
        uint32_t room = ring_buf_put_claim(&ring, &to, CONFIG_FIELDLOOP_SMP_UART_RING);
        uint8_t spill;
        int n = room > 0 ? uart_fifo_read(uart, to, (int)room) : uart_fifo_read(uart, &spill, 1);
        if (n <= 0) {
            ring_buf_put_finish(&ring, 0);
            return;
        }
        if (room > 0) {
            ring_buf_put_finish(&ring, (uint32_t)n);
        } else {
            lost++;
        }
        k_sem_give(&arrived);
    }
}

static void send_some(void) {
    while (out_left > 0) {
        int n = uart_fifo_fill(uart, out, (int)out_left);
        if (n <= 0) {
            return;
        }
        out += n;
        out_left -= (size_t)n;
    }
    uart_irq_tx_disable(uart);
    k_sem_give(&sent);
}

static void on_interrupt(const struct device *device, void *ctx) {
    ARG_UNUSED(ctx);
    if (!uart_irq_update(device)) {
        return;
    }
    if (uart_err_check(device) > 0) { // an overrun; that the driver cannot tell is no error
        lost++;
    }
    if (uart_irq_rx_ready(device)) {
        receive_some();
    }
    if (out != NULL && uart_irq_tx_ready(device)) {
        send_some();
    }
}

// Sends, or gives up when nothing moves any more: false. The caller holds `sending`.
static bool put(const uint8_t *bytes, size_t n) {
    if (!by_interrupt) {
        for (size_t i = 0; i < n; i++) {
            uart_poll_out(uart, bytes[i]);
        }
        return true;
    }
    static bool primed;
    if (!primed && n > 0) { // some drivers' interrupt comes only when a byte has gone
        primed = true;
        uart_poll_out(uart, *bytes++);
        n--;
    }
    k_sem_reset(&sent);
    out_left = n;
    out = bytes;
    uart_irq_tx_enable(uart);
    size_t left = n;
    bool gone = false;
    while (!gone && k_sem_take(&sent, PATIENCE) != 0) {
        gone = out_left == left;
        left = out_left;
    }
    if (gone) {
        uart_irq_tx_disable(uart);
    }
    unsigned int key = irq_lock();
    out = NULL;
    out_left = 0;
    irq_unlock(key);
    return !gone;
}

// What is there, up to cap bytes; waits for the first. 0: none came within `patience`.
static size_t get(uint8_t *bytes, size_t cap, k_timeout_t patience) {
    if (by_interrupt) {
        size_t n;
        while ((n = ring_buf_get(&ring, bytes, (uint32_t)cap)) == 0) {
            if (k_sem_take(&arrived, patience) != 0) {
                return 0;
            }
        }
        return n;
    }
    static int64_t last; // of the thread alone
    k_timepoint_t end = sys_timepoint_calc(patience);
    for (;;) {
        size_t n = 0;
        while (n < cap && uart_poll_in(uart, &bytes[n]) == 0) {
            n++;
        }
        if (n > 0) {
            last = k_uptime_get();
            return n;
        }
        if (sys_timepoint_expired(end)) {
            return 0;
        }
        k_sleep(k_uptime_get() - last < LIVELY_MS ? K_USEC(CONFIG_FIELDLOOP_SMP_UART_POLL_US) : K_MSEC(5));
    }
}

// ---- messages

static void send(const uint8_t *msg, size_t n, fl_framing_t framing) {
    k_mutex_lock(&sending, K_FOREVER);
    if (framing == FL_FRAMING_RAW) {
        (void)put(msg, n);
    } else {
        uint8_t line[FL_LINK_LINE];
        fl_framer_t framer;
        fl_framer_init(&framer, msg, n);
        size_t bytes;
        while ((bytes = fl_framer_next(&framer, line, sizeof(line))) > 0 && put(line, bytes)) {
            // a line is nothing without those before it
        }
    }
    k_mutex_unlock(&sending);
}

static int output(struct net_buf *nb) {
    send(nb->data, nb->len, (fl_framing_t)*(uint8_t *)net_buf_user_data(nb));
    smp_packet_free(nb);
    return 0;
}

static uint16_t mtu(const struct net_buf *nb) {
    ARG_UNUSED(nb);
    return CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE;
}

static void hand_over(size_t n) {
    struct net_buf *nb = smp_packet_alloc();
    for (int i = 0; nb == NULL && i < BUFFER_MS; i++) { // a client that did not wait for the answer
        k_msleep(1);
        nb = smp_packet_alloc();
    }
    if (nb == NULL) {
        lost += (uint32_t)n;
        return;
    }
    net_buf_add_mem(nb, deframe.msg, n);
    *(uint8_t *)net_buf_user_data(nb) = (uint8_t)deframe.framing;
    smp_rx_req(&transport, nb);
}

static void feed(const uint8_t *bytes, size_t n) {
    while (n > 0) {
        size_t used = 0;
        int len = fl_deframe_feed(&deframe, bytes, n, &used);
        if (len > 0) {
            spoken = deframe.framing;
            hand_over((size_t)len);
        } else if (len < 0) { // the host sends it again at once instead of waiting
            uint8_t note[32];
            int note_len = fl_smp_damaged(note, sizeof(note), CONFIG_FIELDLOOP_GROUP);
            if (note_len > 0) {
                send(note, (size_t)note_len, spoken);
            }
        }
        bytes += used;
        n -= used;
    }
}

static void run(void *a, void *b, void *c) {
    ARG_UNUSED(a);
    ARG_UNUSED(b);
    ARG_UNUSED(c);
    bool quiet = true;
    for (;;) {
        uint8_t bytes[64];
        size_t n = get(bytes, sizeof(bytes), quiet ? K_FOREVER : K_MSEC(FL_LINK_GAP_MS));
        if (n == 0) {
            (void)fl_deframe_gap(&deframe);
        }
        quiet = n == 0;
        feed(bytes, n);
    }
}

static int start(void) {
    if (!device_is_ready(uart)) {
        LOG_ERR("%s is not ready: no host can ask", uart->name);
        return 0;
    }
    transport.functions.output = output;
    transport.functions.get_mtu = mtu;
    if (smp_transport_init(&transport) != 0 ||
        fl_deframe_init(&deframe, deframe_buf, sizeof(deframe_buf), FL_DEFRAME_RAW) != FL_OK) {
        LOG_ERR("the transport cannot be set up: no host can ask");
        return 0;
    }
    by_interrupt = uart_irq_callback_user_data_set(uart, on_interrupt, NULL) == 0;
    if (by_interrupt) {
        uart_irq_rx_enable(uart);
        // A byte that came before it raised no interrupt; where a UART holds but one, nothing would come after it.
        unsigned int key = irq_lock();
        uint8_t early;
        while (uart_poll_in(uart, &early) == 0) {
            lost += ring_buf_put(&ring, &early, 1) == 0;
            k_sem_give(&arrived);
        }
        irq_unlock(key);
    }
    k_tid_t id = k_thread_create(&thread, stack, K_THREAD_STACK_SIZEOF(stack), run, NULL, NULL, NULL,
        K_PRIO_PREEMPT(CONFIG_FIELDLOOP_SMP_UART_PRIORITY), 0, K_NO_WAIT);
    k_thread_name_set(id, "fieldloop uart");
    return 0;
}

SYS_INIT(start, APPLICATION, CONFIG_APPLICATION_INIT_PRIORITY);
