// Between the files of this folder.
#ifndef FIELDLOOP_ZEPHYR_PORT_H
#define FIELDLOOP_ZEPHYR_PORT_H

#include <stdint.h>

// Of the UART: whole frames, bad frames, noise bytes, lost bytes.
void fl_zephyr_smp_uart_counters(uint32_t counters[4]);

#endif
