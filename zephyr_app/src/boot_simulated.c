// What tells one boot of a simulated board from the next: fl_zephyr_boot_id() of fieldloop_zephyr.h.
//
// A simulator starts the same program in the same state, and Zephyr's random numbers begin alike there. native_sim
// has the host's clock. QEMU has none; there a count in the memory that the flash lies in, behind it, goes on in the
// host's file.
#include <zephyr/devicetree.h>
#include <zephyr/kernel.h>

#include "fieldloop_zephyr.h"

static uint32_t mixed(uint32_t x) {
    x = (x ^ x >> 16) * 0x85EBCA6Bu;
    x = (x ^ x >> 13) * 0xC2B2AE35u;
    return x ^ x >> 16;
}

#if defined(CONFIG_ARCH_POSIX)
#include <native_rtc.h>

uint32_t fl_zephyr_boot_id(void) {
    uint64_t now = native_rtc_gettime_us(RTC_CLOCK_PSEUDOHOSTREALTIME);
    return mixed((uint32_t)now ^ mixed((uint32_t)(now >> 32)));
}
#else
#define CONTROLLER DT_NODELABEL(sim_flash_controller)
#define BOOTS (*(volatile uint32_t *)(DT_REG_ADDR(DT_PHANDLE(CONTROLLER, memory_region)) + \
                                      DT_REG_SIZE(DT_CHILD(CONTROLLER, flash_sim_0))))

uint32_t fl_zephyr_boot_id(void) {
    uint32_t boots = BOOTS + 1; // a new file holds 0xFF
    BOOTS = boots;
    return mixed(boots * 0x9E3779B1u ^ k_cycle_get_32());
}
#endif
