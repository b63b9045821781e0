#ifndef FIELDLOOP_MPS2_MPHALPORT_H
#define FIELDLOOP_MPS2_MPHALPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "shared/runtime/interrupt_char.h"

// The clocks that QEMU gives the boards: of the timer that time is told by, and of the processor and SysTick.
#if PORT_MPS3
#define PORT_TICKS_PER_US (20)
#define PORT_CPU_HZ (32000000)
#else
#define PORT_TICKS_PER_US (25)
#define PORT_CPU_HZ (25000000)
#endif

// ---- startup.c ----

// One line on the harness' console (QEMU's stdout, by semihosting) and on UART0.
void port_report(const char *line);

// Report, then end the simulator with this exit code.
void port_die(const char *line) __attribute__((noreturn));

// What a power cut leaves: nothing runs any more, QEMU waits to be killed.
void port_power_off(const char *line) __attribute__((noreturn));

// Reset the whole machine; QEMU goes on and the serial ports stay.
void port_reset(void) __attribute__((noreturn));

// 1 after power-on, 2 after port_reset().
int port_reset_cause(void);

// Appends 8 hexadecimal digits; returns the new end. No terminating zero.
char *port_put_hex(char *end, uint32_t value);

// ---- port_time.c ----

void port_time_init(void);

// Timer ticks since start: PORT_TICKS_PER_US, 64 bits, right for more than a year even if nobody asks between.
uint64_t port_ticks(void);

// True under `-icount shift=8`, where a tick stands for an exact number of instructions.
bool port_has_icount(void);

// Ticks between two reads of port_ticks(), as executed instructions under `-icount shift=8`.
static inline uint64_t port_instructions(uint64_t ticks) {
    // One instruction is 256 ns of virtual time, more than 5 ticks; the reads are off by a tick at most.
    const uint64_t thousand = 256 * PORT_TICKS_PER_US;
    return (ticks * 1000 + thousand / 2) / thousand;
}

// How long a writer waits for a reader who takes nothing before it gives up, in milliseconds.
uint32_t port_patience_ms(void);

// Called by every interrupt handler: the next port_wait() returns at once.
void port_wake(void);

mp_uint_t mp_hal_ticks_cpu(void);

#endif
