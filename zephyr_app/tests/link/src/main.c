// The link's codec on this board: the host's frames, whole, damaged and in pieces.
#include <string.h>
#include <zephyr/ztest.h>

#include "fieldloop/fl_error.h"
#include "fieldloop/fl_link.h"

#include "link.h"

#define BUF_BYTES 512

static uint8_t buf[BUF_BYTES];
static uint8_t wire[sizeof(data_console) + FL_LINK_LINE];
static fl_deframe_t rx;

// Feeds n bytes in pieces; returns how many whole messages came, each of which must be the host's.
static int feed(const uint8_t *bytes, size_t n, size_t piece) {
    int messages = 0;
    for (size_t at = 0; at < n;) {
        size_t used;
        int len = fl_deframe_feed(&rx, bytes + at, MIN(piece, n - at), &used);
        if (len > 0) {
            zassert_equal(len, sizeof(data_message));
            zassert_mem_equal(rx.msg, data_message, sizeof(data_message));
            messages++;
        }
        zassert_true(used > 0 || rx.text_len > 0, "no progress at byte %u", (uint32_t)at);
        at += used;
    }
    return messages;
}

static void before(void *fixture) {
    ARG_UNUSED(fixture);
    zassert_ok(fl_deframe_init(&rx, buf, sizeof(buf), FL_DEFRAME_RAW));
}

ZTEST(fieldloop_link, test_frames_of_the_host_come_whole_in_any_pieces) {
    for (size_t piece = 1; piece <= sizeof(data_console); piece += 13) {
        zassert_equal(feed(data_console, sizeof(data_console), piece), 1);
        zassert_equal(rx.framing, FL_FRAMING_CONSOLE);
        zassert_equal(feed(data_message, sizeof(data_message), piece), 1);
        zassert_equal(rx.framing, FL_FRAMING_RAW);
    }
    zassert_equal(rx.bad, 0);
    zassert_equal(rx.noise, 0);
}

ZTEST(fieldloop_link, test_the_framer_makes_the_hosts_bytes) {
    fl_framer_t framer;
    size_t n = 0;
    fl_framer_init(&framer, data_message, sizeof(data_message));
    zassert_equal(fl_framer_bytes(sizeof(data_message)), sizeof(data_console));
    for (size_t more; n < sizeof(data_console) && (more = fl_framer_next(&framer, &wire[n], FL_LINK_LINE)) > 0;) {
        n += more;
    }
    zassert_equal(n, sizeof(data_console));
    zassert_mem_equal(wire, data_console, sizeof(data_console));
    zassert_equal(fl_framer_next(&framer, wire, FL_LINK_LINE), 0);
}

// After any damage to one frame the next one is found.
ZTEST(fieldloop_link, test_a_damaged_frame_does_not_hurt_the_next) {
    for (size_t at = 0; at < sizeof(data_console); at++) {
        memcpy(wire, data_console, sizeof(data_console));
        wire[at] ^= 0x04;
        int first = feed(wire, sizeof(data_console), sizeof(wire));
        zassert_between_inclusive(first, 0, 1);
        fl_deframe_gap(&rx);
        zassert_equal(feed(data_console, sizeof(data_console), sizeof(wire)), 1, "damage at byte %u", (uint32_t)at);
    }
}

ZTEST(fieldloop_link, test_a_raw_message_cut_short_is_given_up_after_the_gap) {
    zassert_equal(feed(data_message, 100, 100), 0);
    zassert_true(fl_deframe_gap(&rx) > 0);
    zassert_equal(feed(data_message, sizeof(data_message), sizeof(data_message)), 1);
}

ZTEST(fieldloop_link, test_the_check_covers_the_whole_message) {
    static uint8_t copy[sizeof(data_message)];
    size_t entries;
    fl_smp_t head;
    zassert_ok(fl_smp_unpack(data_message, sizeof(data_message), &head));
    zassert_equal(head.group, FL_LINK_GROUP);
    zassert_equal(head.cmd, 6);
    zassert_equal(head.seq, 77);
    zassert_ok(fl_smp_check(data_message, sizeof(data_message), &entries));
    zassert_equal(entries, 2);
    for (size_t at = FL_SMP_HEADER + 1; at < sizeof(copy); at++) {
        memcpy(copy, data_message, sizeof(copy));
        copy[at] ^= 0x40;
        zassert_not_ok(fl_smp_check(copy, sizeof(copy), NULL), "byte %u", (uint32_t)at);
    }
}

// Any bytes at all: no fault, and always progress. The seed is fixed, so a failure can be had again.
ZTEST(fieldloop_link, test_noise_is_survived) {
    uint32_t x = 0x2545f491;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof(wire); i++) {
            x ^= x << 13, x ^= x >> 17, x ^= x << 5;
            wire[i] = (uint8_t)((x & 0x300) ? x >> 24 : ((x & 0x400) ? 0x06 : 0x09));
        }
        for (size_t at = 0; at < sizeof(wire);) {
            size_t used;
            (void)fl_deframe_feed(&rx, &wire[at], sizeof(wire) - at, &used);
            zassert_true(used > 0 || rx.text_len > 0);
            at += used;
        }
    }
    fl_deframe_gap(&rx);
    zassert_true(feed(data_console, sizeof(data_console), 64) == 1 || feed(data_console, sizeof(data_console), 64) == 1);
}

ZTEST(fieldloop_link, test_a_call_runs_at_most_once) {
    static const uint8_t reply[] = {0xa1, 0x61, 0x6b, 0x01};
    fl_session_t session;
    uint8_t kept[16];
    fl_session_init(&session, 7, kept, sizeof(kept));
    zassert_equal(fl_session_begin(&session, 1, 1, 6), FL_ENOENT);
    uint32_t id = fl_session_open(&session, 99);
    zassert_equal(fl_session_begin(&session, id, 1, 6), FL_SESSION_RUN);
    zassert_ok(fl_session_end(&session, reply, sizeof(reply)));
    zassert_equal(fl_session_begin(&session, id, 1, 6), FL_SESSION_REPEAT);
    zassert_equal(session.len, sizeof(reply));
    zassert_mem_equal(session.reply, reply, sizeof(reply));
    zassert_equal(fl_session_begin(&session, id, 3, 6), FL_EINVAL);
    zassert_not_equal(fl_session_open(&session, 100), id);
    zassert_equal(fl_session_begin(&session, id, 2, 6), FL_EBUSY);
}

ZTEST_SUITE(fieldloop_link, NULL, NULL, before, NULL, NULL);
