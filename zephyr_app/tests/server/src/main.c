// The device server on this board, message by message: a model is pushed, learns, keeps what it learned through a restart,
// and trains in a job. Its flash is an array here; the store suite has Zephyr's.
#include <string.h>
#include <zephyr/ztest.h>

#include "fieldloop/fl_random.h"
#include "fieldloop/fl_server.h"
#include "fieldloop/fl_sha256.h"

#include "model.h"

#define SECTOR 1024
#define SLOT_SECTORS 5
#define STORE_SECTORS 12
#define CHUNK 600

enum { INFO = 0, SESSION = 1, PUSH = 2, ACTIVATE = 3, PREDICT = 4, OPEN = 5, STEP = 6, COMMIT = 7, UNDO = 8, RESET = 9, JOB = 14 };

static uint8_t slot_bytes[SLOT_SECTORS * SECTOR] __aligned(16), store_bytes[STORE_SECTORS * SECTOR];
static uint8_t memory[10 * 1024] __aligned(16);
static int8_t inputs[DATA_SAMPLES][DATA_SAMPLE_BYTES];
static fl_flash_t slot_flash, store_flash;
static fl_server_slot_t slot;
static fl_server_config_t config;
static fl_server_t server;

// ---- a flash: erased bytes read 0xFF, programming only clears bits

static int nor_read(void *ctx, uint32_t addr, void *buf, uint32_t n) {
    memcpy(buf, (uint8_t *)ctx + addr, n);
    return FL_OK;
}

static int nor_prog(void *ctx, uint32_t addr, const void *buf, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        ((uint8_t *)ctx)[addr + i] &= ((const uint8_t *)buf)[i];
    }
    return FL_OK;
}

static int nor_erase(void *ctx, uint32_t sector) {
    memset((uint8_t *)ctx + sector * SECTOR, 0xff, SECTOR);
    return FL_OK;
}

static fl_flash_t nor(uint8_t *bytes, uint32_t sectors) {
    return (fl_flash_t){.ctx = bytes, .sector_bytes = SECTOR, .sector_count = sectors, .prog_bytes = 8, .read = nor_read,
        .prog = nor_prog, .erase = nor_erase};
}

// ---- a client, in a few lines

static uint8_t request[1024], reply[1024];
static int reply_len;
static uint32_t session, counter;
static fl_cbor_w_t writer;

static void begin(fl_smp_op_t op, uint8_t command) {
    fl_smp_t head = {.op = op, .version = 1, .group = FL_LINK_GROUP, .seq = 1, .cmd = command};
    fl_smp_begin(&writer, request, sizeof(request), &head);
    if (op == FL_SMP_WRITE && command != SESSION) {
        fl_cbor_put_str(&writer, "s");
        fl_cbor_put_int(&writer, session);
        fl_cbor_put_str(&writer, "n");
        fl_cbor_put_int(&writer, ++counter);
    }
}

// Sends what was begun; the reply's map. A reply must be whole and checked, whatever it says.
static fl_cbor_t send(void) {
    int len = fl_smp_end(&writer);
    zassert_true(len > 0);
    reply_len = fl_server_answer(&server, request, (size_t)len, reply, sizeof(reply));
    zassert_ok(fl_smp_check(reply, (size_t)reply_len, NULL));
    return fl_cbor_over(reply + FL_SMP_HEADER, (size_t)reply_len - FL_SMP_HEADER);
}

// Of an error of the group its number; 0: none.
static int64_t error_in(const fl_cbor_t *map) {
    fl_cbor_t err;
    int64_t rc = 0;
    if (fl_cbor_get_int(map, "rc", &rc) == FL_OK) {
        return rc;
    }
    if (fl_cbor_find(map, "err", &err) == FL_OK) {
        zassert_ok(fl_cbor_get_int(&err, "rc", &rc));
    }
    return rc;
}

static fl_cbor_t call(fl_smp_op_t op, uint8_t command) {
    begin(op, command);
    fl_cbor_t map = send();
    zassert_equal(error_in(&map), 0, "command %u", command);
    return map;
}

static int64_t number(const fl_cbor_t *map, const char *key) {
    int64_t v = -1;
    zassert_ok(fl_cbor_get_int(map, key, &v), "%s", key);
    return v;
}

static void open_session(void) {
    begin(FL_SMP_WRITE, SESSION);
    fl_cbor_put_str(&writer, "nonce");
    fl_cbor_put_int(&writer, 12345);
    fl_cbor_t map = send();
    session = (uint32_t)number(&map, "s");
    counter = 0;
}

static void put_bytes(const char *key, const void *bytes, size_t n) {
    fl_cbor_put_str(&writer, key);
    fl_cbor_put_bytes(&writer, bytes, n);
}

static void push_and_activate(void) {
    uint8_t sha[32];
    fl_sha256_t hash;
    fl_sha256_init(&hash);
    fl_sha256_update(&hash, data_image, sizeof(data_image));
    fl_sha256_final(&hash, sha);
    bool match = false;
    for (uint32_t at = 0; at < sizeof(data_image); at += CHUNK) {
        begin(FL_SMP_WRITE, PUSH);
        fl_cbor_put_str(&writer, "to");
        fl_cbor_put_str(&writer, "model0");
        fl_cbor_put_str(&writer, "off");
        fl_cbor_put_int(&writer, at);
        if (at == 0) {
            fl_cbor_put_str(&writer, "len");
            fl_cbor_put_int(&writer, sizeof(data_image));
            put_bytes("sha", sha, sizeof(sha));
        }
        put_bytes("data", data_image + at, MIN(CHUNK, sizeof(data_image) - at));
        fl_cbor_t map = send();
        zassert_equal(error_in(&map), 0);
        (void)fl_cbor_get_bool(&map, "match", &match);
    }
    zassert_true(match);
    begin(FL_SMP_WRITE, ACTIVATE);
    fl_cbor_put_str(&writer, "slot");
    fl_cbor_put_str(&writer, "model0");
    put_bytes("sha", sha, sizeof(sha));
    fl_cbor_t map = send();
    zassert_equal(error_in(&map), 0);
}

static void open_learner(void) {
    begin(FL_SMP_WRITE, OPEN);
    fl_cbor_put_str(&writer, "cfg");
    fl_cbor_put_map(&writer, 3);
    fl_cbor_put_str(&writer, "lr");
    fl_cbor_put_f32(&writer, DATA_RATE);
    fl_cbor_put_str(&writer, "replays");
    fl_cbor_put_int(&writer, DATA_REPLAYS);
    fl_cbor_put_str(&writer, "memory");
    fl_cbor_put_int(&writer, DATA_MEMORY);
    fl_cbor_t map = send();
    zassert_equal(error_in(&map), 0);
}

// A step on each input, four in a message.
static void learn(void) {
    for (uint32_t i = 0; i < DATA_SAMPLES; i += 4) {
        begin(FL_SMP_WRITE, STEP);
        put_bytes("x", inputs[i], 4 * DATA_SAMPLE_BYTES);
        put_bytes("y", data_labels + i, 4);
        fl_cbor_t map = send();
        zassert_equal(error_in(&map), 0);
        zassert_equal(number(&map, "k"), 4);
    }
}

static bool has_the_hosts_state(void) {
    return server.has_learner && server.learner.sizes.state_bytes == sizeof(data_state) &&
        memcmp(fl_learner_state(&server.learner), data_state, sizeof(data_state)) == 0;
}

static void start(uint32_t boot) {
    slot = (fl_server_slot_t){.name = "model0", .flash = &slot_flash, .bytes = slot_bytes};
    config = (fl_server_config_t){.slots = &slot, .slot_count = 1, .store = &store_flash, .memory = memory,
        .memory_bytes = sizeof(memory), .board = CONFIG_BOARD, .os = "zephyr", .boot = boot, .buf_bytes = sizeof(request),
        .group = FL_LINK_GROUP};
    zassert_ok(fl_server_open(&server, &config));
}

static void *setup(void) {
    fl_random_fill(inputs, sizeof(inputs), DATA_SEED);
    return NULL;
}

static void before(void *fixture) {
    ARG_UNUSED(fixture);
    memset(slot_bytes, 0xff, sizeof(slot_bytes));
    memset(store_bytes, 0xff, sizeof(store_bytes));
    slot_flash = nor(slot_bytes, SLOT_SECTORS);
    store_flash = nor(store_bytes, STORE_SECTORS);
    start(1);
    open_session();
}

// ----

ZTEST(fieldloop_server, test_a_pushed_model_predicts_the_hosts_bytes) {
    push_and_activate();
    for (uint32_t i = 0; i < DATA_SAMPLES; i++) {
        const uint8_t *y;
        size_t n;
        begin(FL_SMP_READ, PREDICT);
        put_bytes("x", inputs[i], DATA_SAMPLE_BYTES);
        fl_cbor_t map = send();
        zassert_ok(fl_cbor_get_bytes(&map, "y", &y, &n));
        zassert_equal(n, DATA_CLASSES);
        zassert_mem_equal(y, &data_outputs[i * DATA_CLASSES], DATA_CLASSES);
    }
}

ZTEST(fieldloop_server, test_what_was_committed_survives_a_restart) {
    push_and_activate();
    open_learner();
    learn();
    zassert_true(has_the_hosts_state());
    (void)call(FL_SMP_WRITE, COMMIT);
    learn(); // lost with the power
    zassert_false(has_the_hosts_state());
    memset(memory, 0x5a, sizeof(memory));
    start(2);
    zassert_str_equal(server.fault, "");
    zassert_true(has_the_hosts_state());
}

ZTEST(fieldloop_server, test_undo_and_reset) {
    push_and_activate();
    open_learner();
    learn();
    (void)call(FL_SMP_WRITE, COMMIT);
    learn();
    (void)call(FL_SMP_WRITE, COMMIT);
    zassert_false(has_the_hosts_state());
    (void)call(FL_SMP_WRITE, UNDO);
    zassert_true(has_the_hosts_state());
    (void)call(FL_SMP_WRITE, RESET);
    zassert_equal(fl_learner_stats(&server.learner)->samples, 0);
}

// The same message twice, as after a lost reply: the step happens once, and the same reply comes again.
ZTEST(fieldloop_server, test_a_repeated_call_runs_once) {
    static uint8_t first[sizeof(reply)];
    push_and_activate();
    open_learner();
    begin(FL_SMP_WRITE, STEP);
    put_bytes("x", inputs[0], DATA_SAMPLE_BYTES);
    put_bytes("y", data_labels, 1);
    (void)send();
    int len = reply_len;
    memcpy(first, reply, sizeof(first));
    reply_len = fl_server_answer(&server, request, writer.len, reply, sizeof(reply));
    zassert_equal(reply_len, len);
    zassert_mem_equal(reply, first, (size_t)len);
    zassert_equal(fl_learner_stats(&server.learner)->samples, 1);
}

ZTEST(fieldloop_server, test_a_job_trains_between_the_messages) {
    push_and_activate();
    open_learner();
    begin(FL_SMP_WRITE, JOB);
    fl_cbor_put_str(&writer, "do");
    fl_cbor_put_str(&writer, "train");
    fl_cbor_put_str(&writer, "of");
    fl_cbor_put_int(&writer, 30);
    fl_cbor_put_str(&writer, "commit");
    fl_cbor_put_bool(&writer, true);
    fl_cbor_t map = send();
    zassert_equal(error_in(&map), 0);
    int64_t job = number(&map, "job");
    begin(FL_SMP_WRITE, STEP); // meanwhile nobody else may change anything
    put_bytes("x", inputs[0], DATA_SAMPLE_BYTES);
    put_bytes("y", data_labels, 1);
    map = send();
    zassert_equal(error_in(&map), -FL_EBUSY);
    uint32_t pieces = 0;
    for (; fl_server_busy(&server); pieces++) {
        zassert_true(pieces < 100, "the job does not end");
        fl_server_advance(&server);
    }
    zassert_true(pieces >= 30);
    begin(FL_SMP_READ, JOB);
    fl_cbor_put_str(&writer, "job");
    fl_cbor_put_int(&writer, job);
    map = send();
    const char *state;
    size_t n;
    zassert_ok(fl_cbor_get_text(&map, "state", &state, &n));
    zassert_true(n == 4 && memcmp(state, "done", 4) == 0);
    zassert_equal(number(&map, "done"), 30);
    zassert_true(number(&map, "seq") > 0);
    zassert_equal(fl_learner_stats(&server.learner)->samples, 30);
}

ZTEST(fieldloop_server, test_damaged_messages_change_nothing) {
    push_and_activate();
    open_learner();
    begin(FL_SMP_WRITE, STEP);
    put_bytes("x", inputs[0], DATA_SAMPLE_BYTES);
    put_bytes("y", data_labels, 1);
    int len = fl_smp_end(&writer);
    for (int at = FL_SMP_HEADER; at < len; at++) {
        request[at] ^= 0x21;
        int n = fl_server_answer(&server, request, (size_t)len, reply, sizeof(reply));
        zassert_between_inclusive(n, 0, sizeof(reply));
        request[at] ^= 0x21;
    }
    zassert_equal(fl_learner_stats(&server.learner)->samples, 0);
    (void)fl_server_answer(&server, request, (size_t)len, reply, sizeof(reply));
    zassert_equal(fl_learner_stats(&server.learner)->samples, 1);
}

ZTEST_SUITE(fieldloop_server, NULL, setup, before, NULL, NULL);
