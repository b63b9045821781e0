// The store and the slot writer over Zephyr's flash map: whole records, whatever happens in between.
#include <string.h>
#include <zephyr/storage/flash_map.h>
#include <zephyr/ztest.h>

#include "fieldloop/fl_crc.h"
#include "fieldloop/fl_slot.h"
#include "fieldloop/fl_store.h"
#include "fieldloop_zephyr.h"

#define TYPE 1
#define LONG 600 // bytes of a payload; the store carries two of each key along

static const uint8_t uid[FL_STORE_UID_BYTES] = "sixteen bytes..";
static fl_flash_t real, slot_flash;
static fl_store_t store;
static uint8_t payload[LONG], back[LONG];

// ---- the same flash with a plug that can be pulled: inside an operation, which is then half done

static int operations_left; // below 0: nobody pulls it
static bool dead;

static bool cut(void) {
    return operations_left >= 0 && operations_left-- == 0;
}

static int cut_read(void *ctx, uint32_t addr, void *buf, uint32_t n) {
    return dead ? FL_EIO : real.read(ctx, addr, buf, n);
}

static int cut_prog(void *ctx, uint32_t addr, const void *buf, uint32_t n) {
    if (dead) {
        return FL_EIO;
    }
    if (!cut()) {
        return real.prog(ctx, addr, buf, n);
    }
    dead = true;
    uint32_t half = ROUND_DOWN(n / 2, real.prog_bytes);
    (void)(half > 0 && real.prog(ctx, addr, buf, half));
    return FL_EIO;
}

static int cut_erase(void *ctx, uint32_t sector) {
    if (dead) {
        return FL_EIO;
    }
    dead = cut(); // this one is whole; that a store never trusts an erase it did not see end is tested on the host
    int result = real.erase(ctx, sector);
    return dead ? FL_EIO : result;
}

static fl_flash_t flash_with_plug(int operations) {
    fl_flash_t flash = real;
    flash.read = cut_read;
    flash.prog = cut_prog;
    flash.erase = cut_erase;
    operations_left = operations;
    dead = false;
    return flash;
}

// ----

static void *setup(void) {
    zassert_ok(fl_zephyr_flash_open(&real, FIXED_PARTITION_ID(store_partition)));
    zassert_ok(fl_zephyr_flash_open(&slot_flash, FIXED_PARTITION_ID(slot_partition)));
    return NULL;
}

static void before(void *fixture) {
    ARG_UNUSED(fixture);
    zassert_ok(fl_store_format(&store, &real));
}

static void fill(uint32_t seed) {
    for (uint32_t i = 0; i < LONG; i++) {
        payload[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 3));
    }
}

static int append(uint32_t seed) {
    fill(seed);
    fl_store_piece_t pieces[] = {{payload, 100}, {NULL, 0}, {payload + 100, LONG - 100}};
    return fl_store_append(&store, TYPE, uid, pieces, ARRAY_SIZE(pieces));
}

// The nth newest record holds what append(seed) wrote.
static bool holds(unsigned nth, uint32_t seed) {
    fl_store_rec_t record;
    fill(seed);
    return fl_store_find(&store, TYPE, uid, nth, &record) == FL_OK && record.len == LONG &&
        fl_store_verify(&store, &record) == FL_OK && fl_store_read(&store, &record, 0, back, LONG) == FL_OK &&
        memcmp(back, payload, LONG) == 0;
}

ZTEST(fieldloop_store, test_geometry_is_the_flash_maps) {
    const struct flash_area *area;
    zassert_ok(flash_area_open(FIXED_PARTITION_ID(store_partition), &area));
    zassert_equal(real.sector_bytes, 4096);
    zassert_equal(real.sector_bytes * real.sector_count, area->fa_size);
    zassert_equal(real.prog_bytes, MAX(flash_area_align(area), CONFIG_FIELDLOOP_PROG_BYTES));
    zassert_equal(fl_zephyr_flash_open(&(fl_flash_t){0}, 250), FL_ENOENT);
}

ZTEST(fieldloop_store, test_records_survive_a_remount) {
    for (uint32_t i = 0; i < 40; i++) { // several times round the ring
        zassert_ok(append(i));
        zassert_ok(fl_store_mount(&store, &real, NULL, 0));
        zassert_true(holds(0, i), "record %u", i);
        zassert_true(i == 0 || holds(1, i - 1), "the one before %u", i);
    }
}

ZTEST(fieldloop_store, test_a_blank_flash_is_an_empty_store) {
    fl_store_rec_t record;
    for (uint32_t i = 0; i < real.sector_count; i++) {
        zassert_ok(real.erase(real.ctx, i));
    }
    zassert_ok(fl_store_mount(&store, &real, NULL, 0));
    zassert_equal(fl_store_find(&store, TYPE, uid, 0, &record), FL_ENOENT);
}

ZTEST(fieldloop_store, test_a_payload_without_room_changes_nothing) {
    zassert_ok(append(1));
    fl_store_piece_t piece = {back, real.sector_bytes * real.sector_count};
    zassert_equal(fl_store_append(&store, TYPE, uid, &piece, 1), FL_ENOSPC);
    zassert_true(store.needed > store.available);
    zassert_true(holds(0, 1));
}

// The power goes inside operation 0, 1, 2... of an append: afterwards the old or the new record is there, whole.
ZTEST(fieldloop_store, test_a_torn_write_leaves_the_old_or_the_new) {
    uint32_t newest = 100, cuts = 0;
    zassert_ok(append(newest));
    for (int at = 0; at < 40; at++) {
        fl_flash_t flash = flash_with_plug(at);
        zassert_ok(fl_store_mount(&store, &flash, NULL, 0));
        int result = append(newest + 1);
        cuts += dead;
        zassert_equal(result == FL_OK, !dead, "cut in operation %d, append gave %d", at, result);
        zassert_ok(fl_store_mount(&store, &real, NULL, 0));
        bool now = holds(0, newest + 1);
        zassert_true(now || holds(0, newest), "cut in operation %d: neither the old nor the new", at);
        zassert_true(now || result != FL_OK, "cut in operation %d: told as written, but gone", at);
        newest += now;
        zassert_ok(append(++newest)); // and it goes on from there
        zassert_true(holds(0, newest));
    }
    zassert_true(cuts >= 3, "a cut was meant, %u happened", cuts);
}

ZTEST(fieldloop_store, test_a_slot_takes_an_image_in_pieces) {
    fl_slot_t slot;
    uint32_t crc;
    fill(7);
    zassert_ok(fl_slot_begin(&slot, &slot_flash, LONG));
    for (uint32_t at = 0; at < LONG; at += 77) {
        zassert_ok(fl_slot_write(&slot, at, payload + at, MIN(77, LONG - at)));
    }
    zassert_ok(fl_slot_end(&slot));
    zassert_ok(fl_slot_crc(&slot_flash, LONG, &crc));
    zassert_equal(crc, fl_crc32(0, payload, LONG));
    zassert_equal(fl_slot_begin(&slot, &slot_flash, slot_flash.sector_bytes * slot_flash.sector_count + 1), FL_ENOSPC);
}

// A model runs where it lies: what the slot holds is memory.
ZTEST(fieldloop_store, test_a_partition_is_memory) {
    const struct flash_area *area;
    fl_slot_t slot;
    zassert_ok(flash_area_open(FIXED_PARTITION_ID(slot_partition), &area));
    const uint8_t *bytes = fl_zephyr_flash_bytes(area);
    zassert_not_null(bytes); // where it begins is the board's: this flash is an array somewhere in RAM
    fill(9);
    zassert_ok(fl_slot_begin(&slot, &slot_flash, LONG));
    zassert_ok(fl_slot_write(&slot, 0, payload, LONG));
    zassert_ok(fl_slot_end(&slot));
    zassert_mem_equal(bytes, payload, LONG);
}

ZTEST_SUITE(fieldloop_store, NULL, setup, before, NULL, NULL);
