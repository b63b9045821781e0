// The link: SMP messages, their two framings, and at-most-once sessions. docs/SPEC-link.md has the bytes.
//
// Nothing here knows a port. The caller feeds received bytes to a deframer, gets whole messages, answers
// them, and sends what the framer makes of the reply, in the framing in which the request came:
//
//     while (n > 0) {
//         size_t used;
//         int len = fl_deframe_feed(&rx, p, n, &used);
//         if (rx.text_len > 0) { show(rx.text, rx.text_len); }
//         if (len > 0) { answer(rx.msg, (size_t)len, rx.framing); }
//         p += used;
//         n -= used;
//     }
//     if (no_byte_came_for(FL_LINK_GAP_MS)) { fl_deframe_gap(&rx); }
//
// Every struct is the caller's, every buffer too. Nothing is allocated, nothing is static.
#ifndef FIELDLOOP_FL_LINK_H
#define FIELDLOOP_FL_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_cbor.h"
#include "fieldloop/fl_error.h"

#define FL_LINK_PROTO 1    // the protocol's version; `info` tells it, a client refuses a newer one
#define FL_LINK_GROUP 70   // the default application group
#define FL_LINK_GAP_MS 250 // a raw message that stands still for so long is given up
#define FL_LINK_LINE 127   // bytes of one console line, newline included: what Zephyr's servers take

// ---- the SMP header: 8 bytes, big-endian, before the CBOR map
//
//      0         1       2 3      4 5     6     7
//     +---------+-------+--------+-------+-----+---------+
//     | 0 ver op| flags | length | group | seq | command |   ver (2 bits) = 1, flags = 0
//     +---------+-------+--------+-------+-----+---------+   length counts the bytes after the header

#define FL_SMP_HEADER 8

typedef enum { FL_SMP_READ = 0, FL_SMP_READ_REPLY = 1, FL_SMP_WRITE = 2, FL_SMP_WRITE_REPLY = 3 } fl_smp_op_t;

// Errors of SMP itself, sent as {"rc": code}. Those of our group go as {"err": {"group", "rc"}} with
// rc = -(fl_error_t).
typedef enum {
    FL_SMP_EUNKNOWN = 1,
    FL_SMP_ENOMEM = 2,
    FL_SMP_EINVAL = 3,
    FL_SMP_EMSGSIZE = 7, // the reply is larger than the buffer
    FL_SMP_ENOTSUP = 8,  // no such group or command
    FL_SMP_ECORRUPT = 9, // damaged on the way: send it again
    FL_SMP_EBUSY = 10,
} fl_smp_rc_t;

typedef struct {
    uint8_t op;      // fl_smp_op_t
    uint8_t version; // 1: SMP version 2
    uint16_t length; // of the CBOR map, bytes
    uint16_t group;
    uint8_t seq;
    uint8_t cmd;
} fl_smp_t;

// msg: len bytes from the deframer. FL_EBADMSG: shorter than its header says. FL_ENOTSUP: SMP version 1
// or newer than 2 (the header is filled all the same).
int fl_smp_unpack(const uint8_t *msg, size_t len, fl_smp_t *h);
void fl_smp_pack(uint8_t msg[FL_SMP_HEADER], const fl_smp_t *h);

// ---- the check inside a message: `crc`, the last entry of the map
//
// CRC-32 over four bytes (op, group high, group low, command) and then the encoded entries of the map,
// from the first key up to, and without, the key "crc". It guards key, value, session and counter alike,
// and does not depend on how the map's head is written.

// FL_OK: there and right. FL_ENOENT: no `crc` as the last entry. FL_EBADMSG: wrong, or the message is not
// one well-formed map that ends with the message. FL_ENOTSUP: CBOR outside the subset.
// `entries` (may be NULL): the pairs of the map without `crc`.
int fl_smp_check(const uint8_t *msg, size_t len, size_t *entries);

// A message: begin, put pairs with fl_cbor_put_..., end. `buf` holds the whole message (the header's
// `length` is filled in by the end).
void fl_smp_begin(fl_cbor_w_t *w, uint8_t *buf, size_t cap, const fl_smp_t *h);
int fl_smp_end(fl_cbor_w_t *w); // appends `crc`; returns the message's length, or FL_ENOMEM
// The same without `crc`, for groups that are not ours: their clients do not know it, and some take no key that they do
// not know.
int fl_smp_end_plain(fl_cbor_w_t *w);

// What a device on a dedicated port sends when fl_deframe_feed() returned an error: "a frame came damaged,
// send again". Returns the message's length; FL_ENOMEM when cap is below 24.
#define FL_LINK_DAMAGED 255 // its command
int fl_smp_damaged(uint8_t *buf, size_t cap, uint16_t group);

// The header of the reply to `request`: op + 1, all else the same.
static inline fl_smp_t fl_smp_reply_to(const fl_smp_t *request) {
    fl_smp_t h = *request;
    h.op = (uint8_t)(request->op | 1u);
    h.version = 1;
    return h;
}

// ---- deframer: bytes in, whole messages out
//
// Console framing, on any port: lines  06 09 base64 LF,  04 14 base64 LF, ...  The base64 carries
// length (2 bytes, of what follows), message, CRC16-XMODEM. All else on the port is text.
// Raw framing, on a dedicated port: the message itself, told from console lines by its first byte.

typedef enum { FL_FRAMING_CONSOLE = 1, FL_FRAMING_RAW = 2 } fl_framing_t;

enum {
    FL_DEFRAME_RAW = 1,     // a dedicated port: raw messages are taken as well, text is noise
    FL_DEFRAME_REPLIES = 2, // this side is the client: raw headers are those of replies
};

#define FL_DEFRAME_EXTRA 4 // bytes of the buffer that a message cannot use: frame length and CRC

typedef struct {
    // results of the last feed; they stay valid until the next one
    const uint8_t *msg; // the message, header first
    fl_framing_t framing;
    const uint8_t *text; // text of the shared console, found before the message (into the bytes fed)
    size_t text_len;     // 0 on a dedicated port
    // counters, never reset by the deframer
    uint32_t frames; // whole messages
    uint32_t bad;    // frames given up: damaged, too long, interrupted
    uint32_t noise;  // bytes dropped outside frames
    // private
    uint8_t *buf;
    size_t cap;
    size_t pos;  // bytes of the frame so far
    size_t want; // bytes of the frame in all; 0: not known yet
    uint8_t flags;
    uint8_t state;
    bool open;        // a console frame has begun and waits for more
    bool padded;      // '=' seen: the line's base64 is at its end
    uint8_t pads_due; // '=' that may still follow
    uint8_t held;     // bytes in `hold`
    uint8_t hold[FL_SMP_HEADER + 1]; // a group of base64, or the head of a raw message
} fl_deframe_t;

// `buf` (bytes >= 64) stays the caller's and must outlive `st`. The largest message is
// bytes - FL_DEFRAME_EXTRA; `bytes` is what `info` tells as `buf`. FL_EINVAL: too small, or above 65535.
int fl_deframe_init(fl_deframe_t *st, uint8_t *buf, size_t bytes, unsigned flags);

// Takes up to n bytes; *used tells how many. Returns
//   > 0         a message of that length is at st->msg; feed the rest of the bytes afterwards
//     0         no message yet; *used may be less than n when text was found: show it, feed the rest
//   FL_EBADMSG  a damaged frame was dropped (and counted); in step again, feed the rest
//   FL_ENOMEM   a frame too long for the buffer was dropped (and counted); feed the rest
// Always makes progress: used > 0 or text_len > 0 when n > 0.
int fl_deframe_feed(fl_deframe_t *st, const uint8_t *bytes, size_t n, size_t *used);

// No byte came for FL_LINK_GAP_MS: gives up a raw message that was cut short (console lines need no
// clock). Returns the number of bytes dropped. Harmless to call at any time nothing is on its way.
size_t fl_deframe_gap(fl_deframe_t *st);

// ---- framer: a message out as console lines (a raw message is its own frame)

typedef struct {
    const uint8_t *msg;
    size_t len;
    size_t pos; // of the frame: length, message, CRC
    uint16_t crc;
} fl_framer_t;

// msg stays in place until the last line is out. len <= 65533.
void fl_framer_init(fl_framer_t *f, const uint8_t *msg, size_t len);

// Writes as many whole lines as fit into out (cap >= FL_LINK_LINE); returns the bytes written, 0 when all
// is out. fl_framer_bytes(len) bytes take everything at once.
size_t fl_framer_next(fl_framer_t *f, uint8_t *out, size_t cap);
size_t fl_framer_bytes(size_t len);

// ---- session: state-changing calls happen at most once
//
// A client opens a session and numbers its calls 1, 2, 3... A repeated number gets the stored reply.
// The newest session wins. Session ids are unlike from boot to boot, so that a client of the time before
// a restart is told so.

typedef struct {
    uint32_t boot;   // differs from boot to boot
    uint32_t id;     // the open session, 0: none since this boot
    uint32_t nonce;  // the client's random number that opened it
    uint32_t opened; // sessions since boot
    uint32_t last;   // number of the last call begun
    uint8_t cmd;     // and its command
    int8_t state;    // private
    uint8_t *reply;  // the last call's reply: the CBOR map, without header
    size_t cap;
    size_t len;
} fl_session_t;

enum { FL_SESSION_RUN = 1, FL_SESSION_REPEAT = 2 };

// `reply`: cap bytes for the stored reply; must hold the largest reply of a state-changing call.
void fl_session_init(fl_session_t *st, uint32_t boot, uint8_t *reply, size_t cap);

// Opens a session, returns its id (never 0). The same nonce again, before any call, returns the same id:
// a retry of `session` opens nothing new.
uint32_t fl_session_open(fl_session_t *st, uint32_t nonce);

// Before a state-changing call: session id, number and command as received.
//   FL_SESSION_RUN     run it, then fl_session_end(); the number counts as used from now on, so that a
//                      handler that is broken off (Ctrl-C) is never run twice
//   FL_SESSION_REPEAT  it ran before: send st->reply, st->len
//   FL_ENOENT          no session since this boot: the device restarted
//   FL_EBUSY           another session is open: a client opened a newer one (the error reply's `boot` tells
//                      whether the device restarted as well)
//   FL_EINVAL          a number that is neither last nor last + 1, or a repeat with another command;
//                      the expected number is st->last + 1
//   FL_EIO             a repeat of a call that was broken off, its effect is unknown
//   FL_ENOMEM          a repeat of a call whose reply was too large to keep
int fl_session_begin(fl_session_t *st, uint32_t id, uint32_t n, uint8_t cmd);

// What the client is told of an error of fl_session_begin, as a constant string.
const char *fl_session_text(int error);

// Instead of the call, which turned out to be unknown: its number is free again. (The reply before it is gone: its
// client has it, since it went on.)
void fl_session_unused(fl_session_t *st);

// After the call: keeps the reply (an error reply, too). FL_ENOMEM: larger than the buffer.
int fl_session_end(fl_session_t *st, const uint8_t *reply, size_t len);

#endif
