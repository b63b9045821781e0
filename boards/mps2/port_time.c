// Time, sleeping, and the console as MicroPython's stdin and stdout.
#include "py/runtime.h"
#include "py/mphal.h"
#include "py/stream.h"
#include "uart.h"

#if PORT_MPS3
#define FPGAIO (0x59302000)
#define FINE_COUNTER (*(volatile uint32_t *)(FPGAIO + 0x18)) // counts up
#define FINE_PRESCALER (*(volatile uint32_t *)(FPGAIO + 0x1c))
#else
#define FPGAIO (0x40028000)
#define TIMER_CONTROL (*(volatile uint32_t *)0x40000000)
#define TIMER_VALUE (*(volatile uint32_t *)0x40000004) // counts down
#define TIMER_RELOAD (*(volatile uint32_t *)0x40000008)
#endif
#define COARSE_100HZ (*(volatile uint32_t *)(FPGAIO + 0x14)) // counts up
#define SYSTICK_CONTROL (*(volatile uint32_t *)0xE000E010)
#define SYSTICK_LOAD (*(volatile uint32_t *)0xE000E014)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xE000E018)

#define SYSTICK_ON (7u) // enabled, with interrupt, processor clock
#define SYSTICK_MAX_MS (500u) // 24 bits at 32 MHz
#define TICKS_PER_MS (PORT_TICKS_PER_US * 1000u)
#define COARSE_TICKS (TICKS_PER_MS * 10u)

static uint32_t fine_start;
static uint32_t coarse_start;
static bool icount;
static volatile bool awake;

// At PORT_TICKS_PER_US, modulo 2^32.
static uint32_t fine_now(void) {
    #if PORT_MPS3
    return FINE_COUNTER;
    #else
    return ~TIMER_VALUE;
    #endif
}

uint64_t port_ticks(void) {
    // The fine counter wraps every three minutes or so. How often it did follows from the coarse one, which is never
    // off by more than one of its 10 ms, so nobody has to look in between.
    uint32_t state = port_irq_disable();
    uint32_t fine = fine_now() - fine_start;
    uint32_t coarse = COARSE_100HZ - coarse_start;
    port_irq_restore(state);
    uint64_t near = (uint64_t)coarse * COARSE_TICKS + 0x80000000u;
    uint64_t wraps = (near - fine) >> 32;
    return (wraps << 32) + fine;
}

static bool loop_counts(void) {
    uint32_t n = 1000; // 2 instructions a turn
    uint64_t start = port_ticks();
    __asm volatile ("1: subs %0, #1\n bne 1b" : "+r" (n) :: "cc");
    uint64_t spent = port_instructions(port_ticks() - start);
    return spent > 2000 && spent < 2100;
}

void port_time_init(void) {
    #if PORT_MPS3
    FINE_PRESCALER = 0;
    #else
    TIMER_RELOAD = 0xffffffff;
    TIMER_VALUE = 0xffffffff;
    TIMER_CONTROL = 1;
    #endif
    fine_start = fine_now();
    coarse_start = COARSE_100HZ;
    // Only where instructions are counted does the loop take its known time, and again: 2000
    // instructions and those of reading the time.
    icount = loop_counts() && loop_counts();
}

bool port_has_icount(void) {
    return icount;
}

uint32_t port_patience_ms(void) {
    // Under icount the guest's time runs as fast as instructions do, not at the host's pace.
    return icount ? 60000 : 2000;
}

void port_wake(void) {
    awake = true;
}

void SysTick_Handler(void) {
    SYSTICK_CONTROL = 0;
    awake = true;
}

// Sleep until an interrupt, or for so many ticks; 0 sets no limit.
static void sleep_ticks(uint32_t ticks) {
    uint32_t state = port_irq_disable();
    if (!awake) {
        if (ticks > 0) {
            SYSTICK_LOAD = (uint32_t)((uint64_t)ticks * (PORT_CPU_HZ / 1000) / TICKS_PER_MS) - 1;
            SYSTICK_VALUE = 0;
            SYSTICK_CONTROL = SYSTICK_ON;
        }
        __asm volatile ("dsb\n wfi"); // wakes on a pending interrupt even though masked
        SYSTICK_CONTROL = 0;
    }
    awake = false;
    port_irq_restore(state);
}

void port_wait(int32_t timeout_ms) {
    if (timeout_ms < 0) {
        sleep_ticks(0);
    } else if (timeout_ms > 0) {
        sleep_ticks(MIN((uint32_t)timeout_ms, SYSTICK_MAX_MS) * TICKS_PER_MS);
    }
}

mp_uint_t mp_hal_ticks_ms(void) {
    return (mp_uint_t)(port_ticks() / TICKS_PER_MS);
}

mp_uint_t mp_hal_ticks_us(void) {
    return (mp_uint_t)(port_ticks() / PORT_TICKS_PER_US);
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return (mp_uint_t)port_ticks();
}

uint64_t mp_hal_time_ns(void) {
    return port_ticks() * (1000 / PORT_TICKS_PER_US);
}

void mp_hal_delay_us(mp_uint_t us) {
    uint64_t end = port_ticks() + (uint64_t)us * PORT_TICKS_PER_US;
    while (port_ticks() < end) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms) {
    uint64_t end = port_ticks() + (uint64_t)ms * TICKS_PER_MS;
    mp_event_handle_nowait();
    for (uint64_t now = port_ticks(); now < end; now = port_ticks()) {
        sleep_ticks((uint32_t)MIN(end - now, SYSTICK_MAX_MS * TICKS_PER_MS));
        mp_event_handle_nowait();
    }
}

uintptr_t mp_hal_stdio_poll(uintptr_t flags) {
    uintptr_t ready = 0;
    if ((flags & MP_STREAM_POLL_RD) && uart_any(UART_CONSOLE)) {
        ready |= MP_STREAM_POLL_RD;
    }
    if ((flags & MP_STREAM_POLL_WR) && uart_writable(UART_CONSOLE)) {
        ready |= MP_STREAM_POLL_WR;
    }
    return ready;
}

int mp_hal_stdin_rx_chr(void) {
    for (;;) {
        uint8_t byte;
        if (uart_read(UART_CONSOLE, &byte, 1)) {
            return byte;
        }
        mp_event_wait_indefinite();
    }
}

// Nobody may be reading the console. Then wait for a while, once, and drop what is printed until
// there is room again.
mp_uint_t mp_hal_stdout_tx_strn(const char *str, size_t len) {
    static bool unread;
    size_t done = 0;
    uint64_t start = port_ticks();
    while (done < len) {
        size_t n = uart_write(UART_CONSOLE, (const uint8_t *)str + done, len - done);
        if (n > 0) {
            done += n;
            unread = false;
            start = port_ticks();
        } else if (unread
                   || port_ticks() - start > (uint64_t)port_patience_ms() * TICKS_PER_MS) {
            unread = true;
            break;
        }
    }
    return len;
}
