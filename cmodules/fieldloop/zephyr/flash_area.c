// The five-call flash interface over a partition of Zephyr's flash map.
#include <errno.h>
#include <zephyr/device.h>
#include <zephyr/drivers/flash.h>
#include <zephyr/storage/flash_map.h>
#include <zephyr/sys/util.h>

#if defined(CONFIG_FLASH_SIMULATOR)
#include <zephyr/drivers/flash/flash_simulator.h>
#endif

#include "fieldloop_zephyr.h"

BUILD_ASSERT(IS_POWER_OF_TWO(CONFIG_FIELDLOOP_PROG_BYTES), "CONFIG_FIELDLOOP_PROG_BYTES: expected a power of two");

static int to_fl(int error) {
    switch (error) {
        case 0:
            return FL_OK;
        case -EBADMSG:
            return FL_EBADMSG; // there, but damaged: the store knows what to do
        case -EINVAL:
            return FL_EINVAL;
        default:
            return FL_EIO;
    }
}

// The sectors that the core sees may be several pages; the flash map knows only bytes.
typedef struct {
    const struct flash_area *area;
    uint32_t sector_bytes;
} partition_t;

// One for each partition that was opened; a device has few.
static partition_t partitions[8];
static size_t partition_count;

static int read(void *ctx, uint32_t addr, void *buf, uint32_t n) {
    const partition_t *p = ctx;
    return to_fl(flash_area_read(p->area, (off_t)addr, buf, n));
}

static int prog(void *ctx, uint32_t addr, const void *buf, uint32_t n) {
    const partition_t *p = ctx;
    return to_fl(flash_area_write(p->area, (off_t)addr, buf, n));
}

static int erase(void *ctx, uint32_t sector) {
    const partition_t *p = ctx;
    // Flattening erases, and fills with 0xFF where the memory knows no erasing.
    return to_fl(flash_area_flatten(p->area, (off_t)(sector * p->sector_bytes), p->sector_bytes));
}

// The size of the partition's pages, when it is one size and the partition is a whole number of them; 0: it is not.
static uint32_t page_bytes(const struct flash_area *area) {
    const struct device *device = flash_area_get_device(area);
    uint32_t size = 0;
    for (off_t at = 0; at < (off_t)area->fa_size; at += (off_t)size) {
        struct flash_pages_info page;
        if (flash_get_page_info_by_offs(device, area->fa_off + at, &page) != 0) {
            return 0;
        }
        if (size == 0) {
            size = (uint32_t)page.size;
        }
        if (page.size != size || page.start_offset != area->fa_off + at) {
            return 0;
        }
    }
    return size > 0 && area->fa_size % size == 0 ? size : 0;
}

int fl_zephyr_flash_open(fl_flash_t *flash, uint8_t id) {
    const struct flash_area *area;
    if (flash_area_open(id, &area) != 0 || !device_is_ready(flash_area_get_device(area))) {
        return FL_ENOENT;
    }
    uint32_t unit = MAX((uint32_t)flash_area_align(area), (uint32_t)CONFIG_FIELDLOOP_PROG_BYTES);
    uint32_t page = page_bytes(area);
    if (page == 0 || unit > FL_FLASH_PROG_MAX || !IS_POWER_OF_TWO(unit) || flash_area_erased_val(area) != 0xff) {
        return FL_ENOTSUP;
    }
    uint32_t sector = page;
    while (area->fa_size / sector > FL_FLASH_SECTORS_MAX || sector < FL_FLASH_SECTOR_MIN) {
        sector *= 2;
    }
    size_t i = 0;
    while (i < partition_count && partitions[i].area != area) {
        i++;
    }
    if (i == ARRAY_SIZE(partitions)) {
        return FL_ENOMEM;
    }
    partition_count = MAX(partition_count, i + 1);
    partition_t *p = &partitions[i];
    *p = (partition_t){.area = area, .sector_bytes = sector};
    *flash = (fl_flash_t){
        .ctx = p,
        .sector_bytes = sector,
        .sector_count = (uint32_t)(area->fa_size / sector),
        .prog_bytes = unit,
        .read = read,
        .prog = prog,
        .erase = erase,
        .sync = NULL, // Zephyr's calls return when it is done
    };
    return fl_flash_check(flash, 1);
}

__weak const uint8_t *fl_zephyr_flash_bytes(const struct flash_area *area) {
    const struct device *device = flash_area_get_device(area);
#if defined(CONFIG_FLASH_SIMULATOR)
    if (device == DEVICE_DT_GET(DT_INST(0, zephyr_sim_flash))) {
        size_t size;
        const uint8_t *memory = flash_simulator_get_memory(device, &size);
        return memory == NULL ? NULL : memory + area->fa_off;
    }
#elif defined(CONFIG_XIP) && DT_HAS_CHOSEN(zephyr_flash_controller)
    if (device == DEVICE_DT_GET(DT_CHOSEN(zephyr_flash_controller))) {
        return (const uint8_t *)(uintptr_t)CONFIG_FLASH_BASE_ADDRESS + area->fa_off;
    }
#else
    ARG_UNUSED(device);
#endif
    return NULL;
}
