// Executed instructions on Arm's MPS boards under QEMU: the hooks of fieldloop_zephyr.h.
//
// With `-icount shift=8` an instruction takes 256 ns of virtual time, so a timer's ticks are instructions. Without it
// they are the host's pace and mean nothing; a loop of known length tells which. Interrupts wait meanwhile. A count is
// 32 bits of ticks: 670 million instructions, and 830 million on AN547.
#include <zephyr/devicetree.h>
#include <zephyr/init.h>
#include <zephyr/irq.h>
#include <zephyr/sys/util.h>

#include "fieldloop_zephyr.h"

#define NS_PER_INSTRUCTION 256u

#if DT_NODE_EXISTS(DT_NODELABEL(timer0)) && DT_NODE_HAS_COMPAT(DT_NODELABEL(timer0), arm_cmsdk_timer) && \
    !defined(CONFIG_BOARD_MPS3_CORSTONE300_AN547)
#define TICKS_PER_US 25u
#define TIMER DT_REG_ADDR(DT_NODELABEL(timer0))
#define TIMER_CONTROL (*(volatile uint32_t *)(TIMER))
#define TIMER_VALUE (*(volatile uint32_t *)(TIMER + 4)) // counts down
#define TIMER_RELOAD (*(volatile uint32_t *)(TIMER + 8))

static void start_timer(void) {
    TIMER_RELOAD = 0xffffffff;
    TIMER_VALUE = 0xffffffff;
    TIMER_CONTROL = 1;
}

static uint32_t now(void) {
    return ~TIMER_VALUE;
}
#else
// QEMU's model of the MPS3's FPGAIO.
#define TICKS_PER_US 20u
#define FPGAIO 0x59302000u
#define COUNTER (*(volatile uint32_t *)(FPGAIO + 0x18)) // counts up
#define PRESCALER (*(volatile uint32_t *)(FPGAIO + 0x1c))

static void start_timer(void) {
    PRESCALER = 0;
}

static uint32_t now(void) {
    return COUNTER;
}
#endif

static unsigned int key;
static uint32_t begun;
static uint32_t nothing; // what a count of nothing is
static bool counts;

// One instruction is more than 5 ticks, and a read is off by a tick at most.
static uint64_t instructions(uint32_t ticks) {
    const uint64_t thousand = NS_PER_INSTRUCTION * TICKS_PER_US;
    return ((uint64_t)ticks * 1000u + thousand / 2) / thousand;
}

static bool loop_counts(void) {
    uint32_t n = 1000; // 2 instructions a turn
    uint32_t start = now();
    __asm volatile("1: subs %0, #1\n bne 1b" : "+l"(n)::"cc");
    uint64_t spent = instructions(now() - start);
    return spent > 2000 && spent < 2100;
}

bool fl_zephyr_count_begin(void) {
    if (!counts) {
        return false;
    }
    key = irq_lock();
    begun = now();
    return true;
}

uint64_t fl_zephyr_count_end(void) {
    uint64_t n = instructions(now() - begun);
    irq_unlock(key);
    return n - MIN(n, nothing);
}

static int find_out(void) {
    unsigned int outside = irq_lock();
    start_timer();
    counts = loop_counts() && loop_counts();
    if (fl_zephyr_count_begin()) {
        nothing = (uint32_t)fl_zephyr_count_end();
    }
    irq_unlock(outside);
    return 0;
}

SYS_INIT(find_out, POST_KERNEL, 99);
