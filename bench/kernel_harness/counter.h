// Executed instructions of a bare-metal program in QEMU. Time is FPGAIO's counter, at 20 or 25 MHz; under -icount shift=8 an
// instruction lasts 256 ns, more than 5 ticks: counts are exact. On the host, where there is no FPGAIO, nothing is counted.
#ifndef KERNEL_HARNESS_COUNTER_H
#define KERNEL_HARNESS_COUNTER_H

#include <stdint.h>

#ifdef FPGAIO
#define COUNTER (*(volatile uint32_t *)(FPGAIO + 0x18))  // up, every tick once its prescaler is 0
#define PRESCALER (*(volatile uint32_t *)(FPGAIO + 0x1c))
#else
#define COUNTER 0u
#define COUNTER_MHZ 25
static uint32_t PRESCALER;
#endif

// Up to a tick of phase at both ends: rounded.
static inline uint32_t instructions(uint32_t ticks) {
    const uint32_t thousand = 256 * COUNTER_MHZ;  // ticks of 1000 instructions
    return (uint32_t)(((uint64_t)ticks * 1000 + thousand / 2) / thousand);
}

#endif
