// Driver for the CMSDK APB UART, see uart.h.
#include "py/runtime.h"
#include "py/mphal.h"
#include "uart.h"

typedef struct {
    volatile uint32_t data;
    volatile uint32_t state;
    volatile uint32_t control;
    volatile uint32_t interrupts;
    volatile uint32_t divider;
} uart_registers_t;

#define STATE_TX_FULL (1u)
#define STATE_RX_FULL (2u)
#define CONTROL_TX (1u)
#define CONTROL_RX (2u)
#define CONTROL_RX_INTERRUPT (8u)
#define INTERRUPT_RX (2u)
#define NVIC_ENABLE ((volatile uint32_t *)0xE000E100)

#define CONSOLE_RING (4096)

// Free-running indices, so that the whole ring can be used; sizes are powers of two.
typedef struct {
    uart_registers_t *registers;
    uint8_t *ring;
    uint32_t size;
    uint32_t interrupt;
    volatile uint32_t head; // written by the interrupt
    volatile uint32_t tail; // written by the reader
} uart_t;

static uint8_t console_ring[CONSOLE_RING];
static uint8_t link_ring[UART_LINK_RING];
static uart_t uarts[UART_COUNT] = {
    { (uart_registers_t *)PORT_UART0, console_ring, sizeof(console_ring), PORT_UART0_RX_IRQ, 0, 0 },
    { (uart_registers_t *)PORT_UART1, link_ring, sizeof(link_ring), PORT_UART1_RX_IRQ, 0, 0 },
};

// Move what the UART holds to the ring. In the interrupt, or with interrupts off.
static void drain(int port) {
    uart_t *u = &uarts[port];
    uart_registers_t *r = u->registers;
    r->interrupts = INTERRUPT_RX;
    while (r->state & STATE_RX_FULL) {
        if (u->head - u->tail == u->size) {
            r->control = CONTROL_TX | CONTROL_RX; // left in the register until the ring has room
            return;
        }
        uint8_t byte = (uint8_t)r->data;
        if (port == UART_CONSOLE && byte == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
            continue;
        }
        u->ring[u->head & (u->size - 1)] = byte;
        u->head = u->head + 1;
    }
}

void UART0_RX_Handler(void) {
    drain(UART_CONSOLE);
    port_wake();
}

void UART1_RX_Handler(void) {
    drain(UART_LINK);
    port_wake();
}

void uart_init(void) {
    for (int port = 0; port < UART_COUNT; port++) {
        uart_t *u = &uarts[port];
        u->registers->divider = 16; // the shortest there is; QEMU does not wait for a baud rate
        u->registers->control = CONTROL_TX | CONTROL_RX | CONTROL_RX_INTERRUPT;
        NVIC_ENABLE[u->interrupt / 32] = 1u << (u->interrupt % 32);
        // QEMU does not look at its end of the line again when the receiver is switched on; reading
        // the register is what makes it look.
        (void)u->registers->data;
    }
}

// Take the interrupt up again after the ring was full.
static void rearm(int port) {
    uart_t *u = &uarts[port];
    uint32_t state = port_irq_disable();
    u->registers->control = CONTROL_TX | CONTROL_RX | CONTROL_RX_INTERRUPT;
    drain(port);
    port_irq_restore(state);
}

size_t uart_any(int port) {
    return uarts[port].head - uarts[port].tail;
}

size_t uart_read(int port, uint8_t *buffer, size_t size) {
    uart_t *u = &uarts[port];
    size_t there = u->head - u->tail;
    size_t count = MIN(size, there);
    size_t start = u->tail & (u->size - 1);
    size_t first = MIN(count, u->size - start);
    memcpy(buffer, u->ring + start, first);
    memcpy(buffer + first, u->ring, count - first);
    u->tail += count;
    if (there == u->size && count > 0) {
        rearm(port);
    }
    return count;
}

void uart_clear(int port) {
    uart_t *u = &uarts[port];
    uint32_t state = port_irq_disable();
    u->tail = u->head;
    port_irq_restore(state);
    rearm(port);
}

bool uart_writable(int port) {
    return !(uarts[port].registers->state & STATE_TX_FULL);
}

size_t uart_write(int port, const uint8_t *buffer, size_t size) {
    uart_registers_t *r = uarts[port].registers;
    size_t count = 0;
    while (count < size && !(r->state & STATE_TX_FULL)) {
        r->data = buffer[count++];
    }
    return count;
}
