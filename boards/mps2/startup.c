// Vectors, start-up, and the ways to end: reset, fault, power cut.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "py/mpconfig.h"
#include "py/mphal.h"
#include "shared/runtime/semihosting_arm.h"
#include "uart.h"

extern uint32_t _estack, _sidata, _sdata, _edata, _sbss, _ebss;

void port_main(void) __attribute__((noreturn));
void UART0_RX_Handler(void);
void UART1_RX_Handler(void);
void SysTick_Handler(void);

#define CPACR (*(volatile uint32_t *)0xE000ED88)
#define AIRCR (*(volatile uint32_t *)0xE000ED0C)
#define CFSR (*(volatile uint32_t *)0xE000ED28)
#define NVIC_DISABLE ((volatile uint32_t *)0xE000E180)
#define SYSTICK_CONTROL (*(volatile uint32_t *)0xE000E010)
#define AIRCR_RESET (0x05FA0004)
#define RESET_MARK (0xF1E1D100)
#define EXIT_FAULT (1) // semihosting on 32-bit Arm knows only 0 and 1

// Survives a reset, and is lost with the power.
static uint32_t reset_mark __attribute__((section(".noinit")));
static int reset_cause;

__attribute__((used)) void Reset_Handler(void) {
    #if __ARM_FP // the same bits let the vector extension run
    CPACR |= 0xFu << 20;
    __asm volatile ("dsb\n isb" ::: "memory");
    #endif
    memcpy(&_sdata, &_sidata, (size_t)((char *)&_edata - (char *)&_sdata));
    memset(&_sbss, 0, (size_t)((char *)&_ebss - (char *)&_sbss));
    reset_cause = reset_mark == RESET_MARK ? 2 : 1;
    reset_mark = 0;
    mp_semihosting_init();
    uart_init();
    port_time_init();
    port_main();
}

int port_reset_cause(void) {
    return reset_cause;
}

void port_report(const char *line) {
    static const char end[2] = { '\r', '\n' };
    size_t length = strlen(line);
    mp_hal_stdout_tx_strn(line, length);
    mp_hal_stdout_tx_strn(end, 2);
    mp_semihosting_tx_strn(line, length);
    mp_semihosting_tx_strn(end + 1, 1);
}

// Newlib's name, called by MicroPython's semihosting-free code paths too.
void exit(int status) {
    mp_semihosting_exit(status);
    for (;;) {
    }
}

void port_die(const char *line) {
    port_irq_disable();
    port_report(line);
    exit(EXIT_FAULT);
}

void port_power_off(const char *line) {
    port_irq_disable();
    port_report(line);
    SYSTICK_CONTROL = 0;
    for (int i = 0; i < 8; i++) {
        NVIC_DISABLE[i] = 0xffffffff; // nothing may wake it, so that QEMU idles
    }
    for (;;) {
        __asm volatile ("wfi");
    }
}

void port_reset(void) {
    port_irq_disable();
    reset_mark = RESET_MARK;
    __asm volatile ("dsb" ::: "memory");
    AIRCR = AIRCR_RESET;
    for (;;) {
    }
}

char *port_put_hex(char *end, uint32_t value) {
    for (int shift = 28; shift >= 0; shift -= 4) {
        *end++ = "0123456789abcdef"[(value >> shift) & 15];
    }
    return end;
}

// frame: r0-r3, r12, lr, pc, xpsr as stacked by the processor
__attribute__((used)) static void fault(const uint32_t *frame) {
    static char line[64];
    char *end = strcpy(line, "FIELDLOOP-FAULT pc=") + 19;
    end = port_put_hex(end, frame[6]);
    end = strcpy(end, " cfsr=") + 6;
    end = port_put_hex(end, CFSR);
    *end = 0;
    port_die(line);
}

__attribute__((naked)) static void fault_entry(void) {
    __asm volatile ("mrs r0, msp\n b fault");
}

typedef void (*vector_t)(void);
#define F fault_entry
__attribute__((section(".isr_vector"), used)) static const vector_t vectors[16 + 48] = {
    (vector_t)(void *)&_estack, Reset_Handler, F, F, F, F, F, 0, 0, 0, 0, F, F, 0, F, SysTick_Handler,
    [16 + PORT_UART0_RX_IRQ] = UART0_RX_Handler,
    [16 + PORT_UART1_RX_IRQ] = UART1_RX_Handler,
};
