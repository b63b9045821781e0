// The device server with a host back end: a program for Linux that answers on a pseudo-terminal, as a board does on its
// dedicated port, with flash in a file. It lets the tests of a board run against the C server without a board's toolchain.
//
//     host_main FLASH [buf=4096] [memory=262144] [slot=32] [store=16] [cut=0] [seed=0] [inside=0]
//
// FLASH holds the partitions model0, model1 (`slot` sectors each) and store (`store` sectors), one after the other; it is
// made when it is not there. The port's name is the first line of stdout. The program ends when its stdin does.
// cut=n: it is killed at the n-th program or erase of the store, right after it, or inside it with what `seed` draws.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "fieldloop/fl_server.h"

enum {
    SECTOR = 4096,
    UNIT = 8,
    PATIENCE_MS = 1000,  // a peer that takes no byte for so long gets no reply
    WAIT_MS = 50,
    OS_GROUP = 0,
    OS_ECHO = 0,
    OS_RESET = 5,
    OS_PARAMETERS = 6,
};

static void die(const char *what) {
    fprintf(stderr, "host_main: %s: %s\n", what, strerror(errno));
    exit(2);
}

// ---- flash: stricter than any part. A unit is programmed once after an erase that this process made.

typedef struct {
    uint32_t left;    // operations until the power fails; 0: it stays
    uint32_t dice;
    int inside;
} power_t;

typedef struct {
    uint8_t *bytes;
    uint8_t *clean;   // [units] 1: erased since the start and not yet programmed
    uint32_t size;
    power_t *power;
    fl_flash_t flash;
} part_t;

static uint32_t draw(power_t *power) {
    power->dice = power->dice * 1664525u + 1013904223u;
    return power->dice >> 8;
}

static void broken(const char *rule, uint32_t addr, uint32_t n) {
    fprintf(stderr, "host_main: flash: %s: %u bytes at %u\n", rule, (unsigned)n, (unsigned)addr);
    exit(3);
}

static int is_last(part_t *part) {
    return part->power->left != 0 && --part->power->left == 0;
}

static int flash_read(void *ctx, uint32_t addr, void *buf, uint32_t n) {
    part_t *part = ctx;
    if (addr > part->size || n > part->size - addr) {
        broken("a read leaves the partition", addr, n);
    }
    memcpy(buf, part->bytes + addr, n);
    return FL_OK;
}

static int flash_prog(void *ctx, uint32_t addr, const void *buf, uint32_t n) {
    part_t *part = ctx;
    const uint8_t *from = buf;
    if (n == 0 || addr % UNIT != 0 || n % UNIT != 0 || addr >= part->size || n > SECTOR - addr % SECTOR) {
        broken("a program of no whole units, or beyond its sector", addr, n);
    }
    for (uint32_t i = addr / UNIT; i < (addr + n) / UNIT; i++) {
        if (!part->clean[i]) {
            broken("a program of a unit that is not known to be erased", addr, n);
        }
        part->clean[i] = 0;
    }
    int last = is_last(part);
    uint32_t how = last && part->power->inside ? draw(part->power) % 3 : 2; // nothing, some bits, all of it
    for (uint32_t i = 0; i < n && how != 0; i++) {
        part->bytes[addr + i] &= how == 2 ? from[i] : (uint8_t)(from[i] | draw(part->power));
    }
    if (last) {
        (void)raise(SIGKILL);
    }
    return FL_OK;
}

static int flash_erase(void *ctx, uint32_t sector) {
    part_t *part = ctx;
    if (sector >= part->size / SECTOR) {
        broken("an erase leaves the partition", sector * SECTOR, SECTOR);
    }
    uint8_t *at = part->bytes + (size_t)sector * SECTOR;
    int last = is_last(part);
    uint32_t how = last && part->power->inside ? draw(part->power) % 4 : 3; // nothing, some bits, anything, all of it
    for (uint32_t i = 0; i < SECTOR && how != 0; i++) {
        uint8_t chance = how == 3 ? 0xff : (uint8_t)draw(part->power);
        at[i] = how == 2 ? chance : (uint8_t)(at[i] | chance);
    }
    if (last) {
        (void)raise(SIGKILL);
    }
    memset(part->clean + (size_t)sector * (SECTOR / UNIT), 1, SECTOR / UNIT);
    return FL_OK;
}

static void open_part(part_t *part, uint8_t *bytes, uint32_t sectors, power_t *power) {
    part->bytes = bytes;
    part->size = sectors * SECTOR;
    part->power = power;
    part->clean = calloc(part->size / UNIT, 1);
    part->flash = (fl_flash_t){.ctx = part, .sector_bytes = SECTOR, .sector_count = sectors, .prog_bytes = UNIT,
        .read = flash_read, .prog = flash_prog, .erase = flash_erase};
    if (part->clean == NULL) {
        die("memory");
    }
}

static uint8_t *map_file(const char *path, size_t size) {
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        die(path);
    }
    bool is_new = st.st_size == 0;
    if (!is_new && (size_t)st.st_size != size) {
        fprintf(stderr, "host_main: %s: expected %zu bytes, got %zu; give the sizes it was made with\n", path, size,
            (size_t)st.st_size);
        exit(2);
    }
    if (is_new && ftruncate(fd, (off_t)size) != 0) {
        die(path);
    }
    uint8_t *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) {
        die(path);
    }
    close(fd);
    if (is_new) {
        memset(bytes, 0xff, size);
    }
    return bytes;
}

// ---- the port

typedef struct {
    int fd;
    fl_deframe_t rx;
    fl_framing_t framing;  // of the last message understood
    uint8_t *rx_buf, *tx_buf;
    uint32_t buf_bytes;
} port_t;

static uint64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

// The other end stays open here, so that hosts may come and go.
static int open_port(void) {
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    if (fd < 0 || grantpt(fd) != 0 || unlockpt(fd) != 0) {
        die("pseudo-terminal");
    }
    const char *name = ptsname(fd);
    int slave = name == NULL ? -1 : open(name, O_RDWR | O_NOCTTY);
    struct termios raw;
    if (slave < 0 || tcgetattr(slave, &raw) != 0) {
        die("pseudo-terminal");
    }
    cfmakeraw(&raw);
    if (tcsetattr(slave, TCSANOW, &raw) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        die("pseudo-terminal");
    }
    printf("%s\n", name);
    fflush(stdout);
    return fd;
}

static bool send_bytes(port_t *port, const uint8_t *bytes, size_t n) {
    while (n > 0) {
        ssize_t sent = write(port->fd, bytes, n);
        if (sent > 0) {
            bytes += sent;
            n -= (size_t)sent;
            continue;
        }
        struct pollfd out = {.fd = port->fd, .events = POLLOUT};
        if (poll(&out, 1, PATIENCE_MS) <= 0) {
            return false;
        }
    }
    return true;
}

static void send_message(port_t *port, size_t len) {
    if (port->framing == FL_FRAMING_RAW) {
        (void)send_bytes(port, port->tx_buf, len);
        return;
    }
    uint8_t lines[4 * FL_LINK_LINE];
    fl_framer_t framer;
    fl_framer_init(&framer, port->tx_buf, len);
    size_t n;
    while ((n = fl_framer_next(&framer, lines, sizeof(lines))) > 0 && send_bytes(port, lines, n)) {
    }
}

static void count_port(void *ctx, uint32_t counters[4]) {
    const port_t *port = ctx;
    counters[0] = port->rx.frames;
    counters[1] = port->rx.bad;
    counters[2] = port->rx.noise;
    counters[3] = 0; // a pseudo-terminal loses none
}

// ---- SMP's own group: what MCUmgr answers on Zephyr

static size_t answer_os(port_t *port, const fl_smp_t *h, const uint8_t *msg, size_t len, bool *reset) {
    fl_cbor_t map = fl_cbor_over(msg + FL_SMP_HEADER, len - FL_SMP_HEADER);
    fl_smp_t head = fl_smp_reply_to(h);
    fl_cbor_w_t w;
    const char *text;
    size_t n;
    fl_smp_begin(&w, port->tx_buf, port->buf_bytes - FL_DEFRAME_EXTRA, &head);
    if (h->cmd == OS_ECHO && fl_cbor_get_text(&map, "d", &text, &n) == FL_OK) {
        fl_cbor_put_str(&w, "r");
        fl_cbor_put_text(&w, text, n);
    } else if (h->cmd == OS_PARAMETERS && h->op == FL_SMP_READ) {
        fl_cbor_put_str(&w, "buf_size"); // clients send raw messages of so many bytes
        fl_cbor_put_int(&w, (int64_t)port->buf_bytes - FL_DEFRAME_EXTRA);
        fl_cbor_put_str(&w, "buf_count");
        fl_cbor_put_int(&w, 1);
    } else if (h->cmd == OS_RESET && h->op == FL_SMP_WRITE) {
        *reset = true;
    } else {
        fl_cbor_put_str(&w, "rc");
        fl_cbor_put_int(&w, h->cmd == OS_ECHO ? FL_SMP_EINVAL : FL_SMP_ENOTSUP);
    }
    fl_cbor_put_break(&w); // this group has no `crc`
    if (w.overflow) {
        return 0;
    }
    head.length = (uint16_t)(w.len - FL_SMP_HEADER);
    fl_smp_pack(port->tx_buf, &head);
    return w.len;
}

// ---- serving

static void answer(fl_server_t *s, port_t *port, const uint8_t *msg, size_t len, bool *reset) {
    fl_smp_t h;
    size_t n = 0;
    port->framing = port->rx.framing;
    if (fl_smp_unpack(msg, len, &h) == FL_OK && (h.op & 1u) == 0 && h.group == OS_GROUP) {
        n = answer_os(port, &h, msg, len, reset);
    } else {
        int reply = fl_server_answer(s, msg, len, port->tx_buf, port->buf_bytes - FL_DEFRAME_EXTRA);
        n = reply > 0 ? (size_t)reply : 0;
    }
    if (n > 0) {
        send_message(port, n);
    }
}

static void feed(fl_server_t *s, port_t *port, const uint8_t *bytes, size_t n, bool *reset) {
    while (n > 0 && !*reset) {
        size_t used;
        int len = fl_deframe_feed(&port->rx, bytes, n, &used);
        if (len > 0) {
            answer(s, port, port->rx.msg, (size_t)len, reset);
        } else if (len < 0) { // the host sends it again at once instead of waiting
            int note = fl_smp_damaged(port->tx_buf, port->buf_bytes - FL_DEFRAME_EXTRA, FL_LINK_GROUP);
            send_message(port, note > 0 ? (size_t)note : 0);
        }
        bytes += used;
        n -= used;
    }
}

// Until a reset was asked for (true), or nobody needs this program any more.
static bool serve(fl_server_t *s, port_t *port) {
    uint64_t last = now_ms();
    bool reset = false;
    while (!reset) {
        struct pollfd in[] = {{.fd = port->fd, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
        (void)poll(in, 2, fl_server_busy(s) ? 0 : WAIT_MS);
        uint8_t bytes[1024];
        if (in[1].revents != 0 && read(STDIN_FILENO, bytes, sizeof(bytes)) <= 0) {
            return false;
        }
        ssize_t n = read(port->fd, bytes, sizeof(bytes));
        if (n > 0) {
            last = now_ms();
            feed(s, port, bytes, (size_t)n, &reset);
        } else if (now_ms() - last >= FL_LINK_GAP_MS) {
            (void)fl_deframe_gap(&port->rx);
        }
        fl_server_advance(s); // also after an answer: a busy host must not keep a job waiting
    }
    return true;
}

// ---- the program

static uint32_t option(int argc, char **argv, const char *name, uint32_t usual) {
    size_t n = strlen(name);
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=') {
            return (uint32_t)strtoul(argv[i] + n + 1, NULL, 0);
        }
    }
    return usual;
}

static uint32_t new_boot(void) {
    uint32_t boot = 0;
    int fd = open("/dev/urandom", O_RDONLY);
    if (fd < 0 || read(fd, &boot, sizeof(boot)) != (ssize_t)sizeof(boot)) {
        die("/dev/urandom");
    }
    close(fd);
    return boot;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "host_main: expected the path of a flash file, got nothing\n");
        return 2;
    }
    uint32_t slot_sectors = option(argc, argv, "slot", 32);
    uint32_t store_sectors = option(argc, argv, "store", 16);
    uint32_t memory_bytes = option(argc, argv, "memory", 262144);
    power_t steady = {0, 0, 0};
    power_t power = {option(argc, argv, "cut", 0), option(argc, argv, "seed", 0), (int)option(argc, argv, "inside", 0)};
    uint8_t *bytes = map_file(argv[1], (size_t)(2 * slot_sectors + store_sectors) * SECTOR);
    part_t parts[3];
    open_part(&parts[0], bytes, slot_sectors, &steady);
    open_part(&parts[1], bytes + (size_t)slot_sectors * SECTOR, slot_sectors, &steady);
    open_part(&parts[2], bytes + (size_t)2 * slot_sectors * SECTOR, store_sectors, &power);
    const fl_server_slot_t slots[] = {
        {"model0", &parts[0].flash, parts[0].bytes},
        {"model1", &parts[1].flash, parts[1].bytes},
    };
    port_t port = {.framing = FL_FRAMING_RAW, .buf_bytes = option(argc, argv, "buf", 4096)};
    port.rx_buf = malloc(port.buf_bytes);
    port.tx_buf = malloc(port.buf_bytes);
    fl_server_t *s = malloc(sizeof(*s));
    uint8_t *memory = aligned_alloc(16, (memory_bytes + 15u) & ~(size_t)15u);
    if (port.rx_buf == NULL || port.tx_buf == NULL || memory == NULL || s == NULL) {
        die("memory");
    }
    port.fd = open_port();
    bool again = true;
    while (again) { // a reset forgets what lies in RAM, and which sectors are erased
        memset(memory, 0xa5, memory_bytes);
        memset(s, 0xa5, sizeof(*s));
        for (int i = 0; i < 3; i++) {
            memset(parts[i].clean, 0, parts[i].size / UNIT);
        }
        if (fl_deframe_init(&port.rx, port.rx_buf, port.buf_bytes, FL_DEFRAME_RAW) != FL_OK) {
            fprintf(stderr, "host_main: buf=%u: expected 256 to 65535\n", (unsigned)port.buf_bytes);
            return 2;
        }
        fl_server_config_t config = {
            .slots = slots, .slot_count = 2, .store = &parts[2].flash, .memory = memory, .memory_bytes = memory_bytes,
            .board = "host", .os = "linux", .boot = new_boot(), .buf_bytes = port.buf_bytes, .group = FL_LINK_GROUP,
            .port_counters = count_port, .ctx = &port,
        };
        int error = fl_server_open(s, &config);
        if (error == FL_EINVAL) { // with any other it serves all the same, and `info` tells
            fprintf(stderr, "host_main: the server did not open: a size is out of its range\n");
            return 2;
        }
        again = serve(s, &port);
    }
    free(s);
    free(memory);
    free(port.rx_buf);
    free(port.tx_buf);
    for (int i = 0; i < 3; i++) {
        free(parts[i].clean);
    }
    return 0;
}
