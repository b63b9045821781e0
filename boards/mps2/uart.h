// The two serial ports: 0 is the console (REPL), 1 the link.
//
// A receiver has a ring filled by its interrupt. When the ring is full the interrupt is masked and the
// byte is left in the UART's register, which makes QEMU hold back the sender: no byte is ever lost.
#ifndef FIELDLOOP_MPS2_UART_H
#define FIELDLOOP_MPS2_UART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UART_COUNT (2)
#define UART_CONSOLE (0)
#define UART_LINK (1)
#define UART_LINK_RING (8192)

#if PORT_MPS3
#define PORT_UART0 (0x59303000)
#define PORT_UART1 (0x59304000)
#define PORT_UART0_RX_IRQ (33)
#define PORT_UART1_RX_IRQ (35)
#else
#define PORT_UART0 (0x40004000)
#define PORT_UART1 (0x40005000)
#define PORT_UART0_RX_IRQ (0)
#define PORT_UART1_RX_IRQ (2)
#endif

void uart_init(void);

// Bytes that can be read at once.
size_t uart_any(int port);

// Take up to `size` bytes; returns how many there were. Never waits.
size_t uart_read(int port, uint8_t *buffer, size_t size);

// Forget what was received and not read.
void uart_clear(int port);

// True when a byte can be written without waiting.
bool uart_writable(int port);

// Write without waiting; returns how many bytes went out.
size_t uart_write(int port, const uint8_t *buffer, size_t size);

#endif
