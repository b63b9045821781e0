// _fieldloop.Link: SMP requests from a stream, and the replies to them. docs/SPEC-link.md is the protocol.
//
// What needs no knowledge of models is answered here: damaged messages, unknown groups, sessions, repeated
// calls. poll() returns True for a request that a handler must carry out; then reply() or fail() ends it.
#include <string.h>

#include "mod_cbor.h"
#include "mod_common.h"

#include "py/mphal.h"
#include "py/stream.h"

#include "fieldloop/fl_link.h"

#if MICROPY_PY_SELECT_POSIX_OPTIMISATIONS
#include <poll.h>
#endif

#define REPLY_BYTES 384     // kept reply of a state-changing call
#define IN_BYTES 512        // read from the stream at once
#define PATIENCE_MS 1000    // a peer that takes no byte for so long gets no reply
#define COMMAND_SESSION 1   // of our group; opens a session and carries none
#define GROUP_OS 0          // SMP's own group: echo, reset, parameters
#define GROUP_FILES 8       // and that of files

typedef struct {
    mp_obj_base_t base;
    mp_obj_t rx, tx;      // streams
    mp_obj_t text;        // called with the text of a shared console, or None
    bool dedicated;       // raw messages are taken as well, text is noise
    bool pending;         // a request waits for reply() or fail()
    bool counted;         // and its session keeps the reply
    uint16_t group;       // ours
    uint16_t in_at, in_n; // of `in`: bytes read and not yet fed
    uint32_t last_ms;     // when the last byte came
    bool gap_done;        // the silence since then was already told
    uint32_t unsent;      // replies that nobody took
    fl_deframe_t deframe;
    fl_framing_t framing; // of the request
    fl_smp_t head;        // of the request
    size_t len;           // of the request
    fl_session_t session;
    size_t cap;           // of rx_block and tx_block
    uint8_t *rx_block, *tx_block;
    uint8_t in[IN_BYTES];
    uint8_t kept[REPLY_BYTES];
} link_t;

// ---- bytes out

// A stream written in Python may say anything.
static void check_count(mp_uint_t done, size_t asked) {
    if (done != MP_STREAM_ERROR && done > asked) {
        fl_mp_raise(FL_EIO, MP_ERROR_TEXT("the stream says it moved %u bytes of %u"), (unsigned)done,
            (unsigned)asked);
    }
}

static bool write_all(link_t *self, const uint8_t *bytes, size_t n) {
    const mp_stream_p_t *stream = mp_get_stream(self->tx);
    mp_uint_t since = mp_hal_ticks_ms();
    while (n > 0) {
        int error;
        mp_uint_t sent = stream->write(self->tx, bytes, n, &error);
        if (sent == MP_STREAM_ERROR && error != MP_EAGAIN && error != MP_ETIMEDOUT) {
            mp_raise_OSError(error);
        }
        check_count(sent, n);
        if (sent != MP_STREAM_ERROR && sent > 0) {
            bytes += sent;
            n -= sent;
            since = mp_hal_ticks_ms();
        } else if (mp_hal_ticks_ms() - since > PATIENCE_MS) {
            ++self->unsent;
            return false;
        } else {
            mp_event_wait_ms(1);
        }
    }
    return true;
}

static void send(link_t *self, size_t len) {
    if (self->framing == FL_FRAMING_RAW) {
        (void)write_all(self, self->tx_block, len);
        return;
    }
    uint8_t lines[4 * FL_LINK_LINE];
    fl_framer_t framer;
    fl_framer_init(&framer, self->tx_block, len);
    size_t n;
    while ((n = fl_framer_next(&framer, lines, sizeof(lines))) > 0) {
        if (!write_all(self, lines, n)) {
            return;
        }
    }
}

static void begin(link_t *self, fl_cbor_w_t *w) {
    fl_smp_t head = fl_smp_reply_to(&self->head);
    fl_smp_begin(w, self->tx_block, self->cap - FL_DEFRAME_EXTRA, &head);
}

// Ends the message: with the check in our group, without in others, whose clients may take no foreign key. 0: it does
// not fit.
static size_t end(link_t *self, fl_cbor_w_t *w) {
    int len = self->head.group == self->group ? fl_smp_end(w) : fl_smp_end_plain(w);
    return len > 0 ? (size_t)len : 0;
}

static void finish(link_t *self, fl_cbor_w_t *w) {
    size_t len = end(self, w);
    if (len == 0) {
        begin(self, w);
        fl_cbor_put_str(w, "rc");
        fl_cbor_put_int(w, FL_SMP_EMSGSIZE);
        len = end(self, w);
    }
    if (self->counted) {
        (void)fl_session_end(&self->session, self->tx_block + FL_SMP_HEADER, len - FL_SMP_HEADER);
    }
    self->pending = self->counted = false;
    send(self, len);
}

static void answer_rc(link_t *self, int rc) {
    fl_cbor_w_t w;
    begin(self, &w);
    fl_cbor_put_str(&w, "rc");
    fl_cbor_put_int(&w, rc);
    finish(self, &w);
}

static void put_error(fl_cbor_w_t *w, uint16_t group, int error) {
    fl_cbor_put_str(w, "err");
    fl_cbor_put_map(w, 2);
    fl_cbor_put_str(w, "group");
    fl_cbor_put_int(w, group);
    fl_cbor_put_str(w, "rc");
    fl_cbor_put_int(w, -error);
}

// ---- sessions

static void open_session(link_t *self, const fl_cbor_t *map) {
    uint32_t nonce;
    fl_cbor_w_t w;
    begin(self, &w);
    if (fl_cbor_get_u32(map, "nonce", &nonce) != FL_OK) {
        put_error(&w, self->group, FL_EINVAL);
        fl_cbor_put_str(&w, "msg");
        fl_cbor_put_str(&w, "session: expected `nonce`, an unsigned 32-bit number");
    } else {
        fl_cbor_put_str(&w, "s");
        fl_cbor_put_int(&w, fl_session_open(&self->session, nonce));
        fl_cbor_put_str(&w, "n");
        fl_cbor_put_int(&w, self->session.last);
        fl_cbor_put_str(&w, "boot");
        fl_cbor_put_int(&w, self->session.boot);
    }
    finish(self, &w);
}

// True: run the call. Otherwise it was answered here.
static bool admit(link_t *self, const fl_cbor_t *map) {
    uint32_t id = 0, n = 0;
    int result = FL_EINVAL;
    if (fl_cbor_get_u32(map, "s", &id) == FL_OK && fl_cbor_get_u32(map, "n", &n) == FL_OK) {
        result = fl_session_begin(&self->session, id, n, self->head.cmd);
    }
    if (result == FL_SESSION_RUN) {
        self->counted = true;
        return true;
    }
    if (result == FL_SESSION_REPEAT) {
        fl_smp_t head = fl_smp_reply_to(&self->head);
        head.length = (uint16_t)self->session.len;
        fl_smp_pack(self->tx_block, &head);
        memcpy(self->tx_block + FL_SMP_HEADER, self->session.reply, self->session.len);
        send(self, FL_SMP_HEADER + self->session.len);
        return false;
    }
    fl_cbor_w_t w;
    begin(self, &w);
    put_error(&w, self->group, result);
    fl_cbor_put_str(&w, "msg");
    fl_cbor_put_str(&w, fl_session_text(result));
    fl_cbor_put_str(&w, "want");
    fl_cbor_put_int(&w, (int64_t)self->session.last + 1);
    fl_cbor_put_str(&w, "boot");
    fl_cbor_put_int(&w, self->session.boot);
    finish(self, &w);
    return false;
}

// ---- bytes in

// A whole message lies in the deframer. True: a request for a handler.
static bool received(link_t *self, size_t len) {
    self->len = len;
    self->framing = self->deframe.framing;
    if (fl_smp_unpack(self->deframe.msg, len, &self->head) != FL_OK || (self->head.op & 1u)) {
        return false; // another version of SMP, or a reply: not for us
    }
    if (self->head.group == GROUP_OS || self->head.group == GROUP_FILES) {
        self->pending = true;
        return true;
    }
    if (self->head.group != self->group) {
        answer_rc(self, FL_SMP_ENOTSUP);
        return false;
    }
    bool write = self->head.op == FL_SMP_WRITE;
    int check = fl_smp_check(self->deframe.msg, len, NULL);
    if (check != FL_OK && !(check == FL_ENOENT && !write)) {
        answer_rc(self, check == FL_EBADMSG ? FL_SMP_ECORRUPT : FL_SMP_EINVAL);
        return false;
    }
    fl_cbor_t map = fl_cbor_over(self->deframe.msg + FL_SMP_HEADER, len - FL_SMP_HEADER);
    if (write && self->head.cmd == COMMAND_SESSION) {
        open_session(self, &map);
        return false;
    }
    if (write && !admit(self, &map)) {
        return false;
    }
    self->pending = true;
    return true;
}

// Feeds what was read; true as soon as there is a request for a handler.
static bool feed(link_t *self) {
    while (self->in_at < self->in_n) {
        size_t used = 0;
        int len = fl_deframe_feed(&self->deframe, self->in + self->in_at, (size_t)(self->in_n - self->in_at), &used);
        self->in_at = (uint16_t)(self->in_at + used);
        if (self->deframe.text_len > 0 && self->text != mp_const_none) {
            mp_call_function_1(self->text, mp_obj_new_bytes(self->deframe.text, self->deframe.text_len));
        }
        if (len > 0 && received(self, (size_t)len)) {
            return true;
        }
        if (len < 0 && self->dedicated) { // the host sends it again at once instead of waiting
            int note = fl_smp_damaged(self->tx_block, self->cap - FL_DEFRAME_EXTRA, self->group);
            if (note > 0) {
                send(self, (size_t)note);
            }
        }
    }
    return false;
}

static bool readable(const mp_stream_p_t *stream, mp_obj_t rx) {
    int error;
    #if MICROPY_PY_SELECT_POSIX_OPTIMISATIONS // the unix port's files leave polling to the system
    mp_uint_t fd = stream->ioctl(rx, MP_STREAM_GET_FILENO, 0, &error);
    if (fd != MP_STREAM_ERROR) {
        struct pollfd one = {.fd = (int)fd, .events = POLLIN};
        return poll(&one, 1, 0) > 0;
    }
    #endif
    mp_uint_t ready = stream->ioctl(rx, MP_STREAM_POLL, MP_STREAM_POLL_RD, &error);
    if (ready == MP_STREAM_ERROR) {
        mp_raise_OSError(error);
    }
    return (ready & MP_STREAM_POLL_RD) != 0;
}

// Reads what is there without waiting; false when nothing is.
static bool refill(link_t *self) {
    const mp_stream_p_t *stream = mp_get_stream(self->rx);
    self->in_at = self->in_n = 0;
    // A console's read waits until all that was asked for is there, so it is asked byte by byte.
    size_t at_once = self->dedicated ? IN_BYTES : 1;
    int error;
    while (self->in_n < IN_BYTES && readable(stream, self->rx)) {
        // What comes behind a Ctrl-C is for the REPL: mpremote and others send more at once.
        mp_handle_pending(true);
        mp_uint_t n = stream->read(self->rx, self->in + self->in_n, at_once, &error);
        if (n == MP_STREAM_ERROR) {
            if (error == MP_EAGAIN || error == MP_ETIMEDOUT) {
                break;
            }
            mp_raise_OSError(error);
        }
        check_count(n, at_once);
        self->in_n = (uint16_t)(self->in_n + n);
        if (n == 0 || self->dedicated) {
            break;
        }
    }
    return self->in_n > 0;
}

// poll(wait_ms=0) -> bool: True when a request waits for reply() or fail(). wait_ms < 0: for ever.
static mp_obj_t link_poll(size_t n_args, const mp_obj_t *args) {
    link_t *self = MP_OBJ_TO_PTR(args[0]);
    mp_int_t wait_ms = n_args > 1 ? mp_obj_get_int(args[1]) : 0;
    mp_uint_t start = mp_hal_ticks_ms();
    self->pending = self->counted = false; // a handler that was broken off never answers
    for (;;) {
        if (feed(self)) {
            return mp_const_true;
        }
        mp_uint_t now = mp_hal_ticks_ms();
        if (refill(self)) {
            self->last_ms = (uint32_t)now;
            self->gap_done = false;
            continue;
        }
        if (!self->gap_done && (uint32_t)now - self->last_ms >= FL_LINK_GAP_MS) {
            (void)fl_deframe_gap(&self->deframe);
            self->gap_done = true;
        }
        if (wait_ms >= 0 && now - start >= (mp_uint_t)wait_ms) {
            mp_event_handle_nowait(); // Ctrl-C, also when the caller never waits
            return mp_const_false;
        }
        mp_event_wait_ms(1);
    }
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(link_poll_obj, 1, 2, link_poll);

static link_t *get_pending(mp_obj_t self_in) {
    link_t *self = MP_OBJ_TO_PTR(self_in);
    if (!self->pending) {
        mp_raise_ValueError(MP_ERROR_TEXT("no request waits for an answer; poll() tells when one does"));
    }
    return self;
}

// body() -> dict of the request. Byte strings are views into the receive buffer: good until the next poll().
static mp_obj_t link_body(mp_obj_t self_in) {
    link_t *self = get_pending(self_in);
    fl_cbor_t at = fl_cbor_over(self->deframe.msg + FL_SMP_HEADER, self->len - FL_SMP_HEADER);
    mp_obj_t body;
    int error = fl_mp_cbor_read(&at, self->rx_block, &body);
    if (error != FL_OK || !mp_obj_is_dict_or_ordereddict(body)) {
        fl_mp_raise(error == FL_OK ? FL_EINVAL : error, MP_ERROR_TEXT("the request's body is not a CBOR map"));
    }
    return body;
}
static MP_DEFINE_CONST_FUN_OBJ_1(link_body_obj, link_body);

// reply(dict): answers the request.
static mp_obj_t link_reply(mp_obj_t self_in, mp_obj_t body) {
    link_t *self = get_pending(self_in);
    fl_cbor_w_t w;
    begin(self, &w);
    fl_mp_cbor_write_pairs(&w, body);
    finish(self, &w);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(link_reply_obj, link_reply);

// fail(error, text, more=None): answers with minus an error of the core, a text, and further pairs.
static mp_obj_t link_fail(size_t n_args, const mp_obj_t *args) {
    link_t *self = get_pending(args[0]);
    fl_cbor_w_t w;
    begin(self, &w);
    put_error(&w, self->head.group, (int)mp_obj_get_int(args[1]));
    fl_cbor_put_str(&w, "msg");
    fl_mp_cbor_write(&w, args[2]);
    if (n_args > 3 && args[3] != mp_const_none) {
        fl_mp_cbor_write_pairs(&w, args[3]);
    }
    finish(self, &w);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(link_fail_obj, 3, 4, link_fail);

// refuse(rc): answers with an error of SMP itself (2 no memory, 3 invalid, 8 no such command).
static mp_obj_t link_refuse(mp_obj_t self_in, mp_obj_t rc) {
    link_t *self = get_pending(self_in);
    int code = (int)mp_obj_get_int(rc);
    if (self->counted && code == FL_SMP_ENOTSUP) {
        fl_session_unused(&self->session);
        self->counted = false;
    }
    answer_rc(self, code);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(link_refuse_obj, link_refuse);

// ---- life

static mp_obj_t link_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    enum { ARG_rx, ARG_tx, ARG_dedicated, ARG_buf, ARG_group, ARG_boot, ARG_text };
    static const mp_arg_t allowed[] = {
        { MP_QSTR_rx, MP_ARG_REQUIRED | MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_tx, MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_dedicated, MP_ARG_KW_ONLY | MP_ARG_BOOL, {.u_bool = true} },
        { MP_QSTR_buf, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = 4096} },
        { MP_QSTR_group, MP_ARG_KW_ONLY | MP_ARG_INT, {.u_int = FL_LINK_GROUP} },
        { MP_QSTR_boot, MP_ARG_KW_ONLY | MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
        { MP_QSTR_text, MP_ARG_KW_ONLY | MP_ARG_OBJ, {.u_rom_obj = MP_ROM_NONE} },
    };
    mp_arg_val_t vals[MP_ARRAY_SIZE(allowed)];
    mp_arg_parse_all_kw_array(n_args, n_kw, args, MP_ARRAY_SIZE(allowed), allowed, vals);
    mp_int_t buf = vals[ARG_buf].u_int;
    mp_int_t group = vals[ARG_group].u_int;
    if (buf < 256 || buf > 65535) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("buf: expected 256..65535 bytes, got %d"), (int)buf);
    }
    if (group < 64 || group > 255) {
        mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("group: expected 64..255, got %d"), (int)group);
    }
    mp_obj_t tx = vals[ARG_tx].u_obj == mp_const_none ? vals[ARG_rx].u_obj : vals[ARG_tx].u_obj;
    (void)mp_get_stream_raise(vals[ARG_rx].u_obj, MP_STREAM_OP_READ | MP_STREAM_OP_IOCTL);
    (void)mp_get_stream_raise(tx, MP_STREAM_OP_WRITE);
    link_t *self = mp_obj_malloc(link_t, type);
    memset((uint8_t *)self + sizeof(self->base), 0, sizeof(*self) - sizeof(self->base));
    self->rx = vals[ARG_rx].u_obj;
    self->tx = tx;
    self->text = vals[ARG_text].u_obj;
    self->dedicated = vals[ARG_dedicated].u_bool;
    self->group = (uint16_t)group;
    self->cap = (size_t)buf;
    self->rx_block = fl_mp_alloc(self->cap, "link");
    self->tx_block = fl_mp_alloc(self->cap, "link");
    self->last_ms = (uint32_t)mp_hal_ticks_ms();
    self->gap_done = true;
    (void)fl_deframe_init(&self->deframe, self->rx_block, self->cap, self->dedicated ? FL_DEFRAME_RAW : 0);
    mp_obj_t boot_in = vals[ARG_boot].u_obj;
    uint32_t boot = boot_in == mp_const_none ? 1 : (uint32_t)mp_obj_get_int_truncated(boot_in);
    fl_session_init(&self->session, boot, self->kept, sizeof(self->kept));
    return MP_OBJ_FROM_PTR(self);
}

static void link_attr(mp_obj_t self_in, qstr attr, mp_obj_t *dest) {
    link_t *self = MP_OBJ_TO_PTR(self_in);
    if (dest[0] != MP_OBJ_NULL) {
        return; // nothing can be set
    }
    mp_obj_t value = MP_OBJ_NULL;
    switch (attr) {
        case MP_QSTR_group: value = MP_OBJ_NEW_SMALL_INT(self->head.group); break;
        case MP_QSTR_command: value = MP_OBJ_NEW_SMALL_INT(self->head.cmd); break;
        case MP_QSTR_write: value = mp_obj_new_bool(self->head.op == FL_SMP_WRITE); break;
        case MP_QSTR_dedicated: value = mp_obj_new_bool(self->dedicated); break;
        case MP_QSTR_buf: value = mp_obj_new_int_from_uint(self->cap); break;
        case MP_QSTR_boot: value = mp_obj_new_int_from_uint(self->session.boot); break;
        case MP_QSTR_session: value = mp_obj_new_int_from_uint(self->session.id); break;
        case MP_QSTR_calls: value = mp_obj_new_int_from_uint(self->session.last); break;
        case MP_QSTR_frames: value = mp_obj_new_int_from_uint(self->deframe.frames); break;
        case MP_QSTR_bad: value = mp_obj_new_int_from_uint(self->deframe.bad); break;
        case MP_QSTR_noise: value = mp_obj_new_int_from_uint(self->deframe.noise); break;
        case MP_QSTR_unsent: value = mp_obj_new_int_from_uint(self->unsent); break;
        default: dest[1] = MP_OBJ_SENTINEL; return; // a method
    }
    dest[0] = value;
}

static void link_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    (void)kind;
    link_t *self = MP_OBJ_TO_PTR(self_in);
    mp_printf(print, "Link(%s, buf %u bytes, group %u, %u frames, %u bad)",
        self->dedicated ? "dedicated" : "console", (unsigned)self->cap, (unsigned)self->group,
        (unsigned)self->deframe.frames, (unsigned)self->deframe.bad);
}

static const mp_rom_map_elem_t link_locals_table[] = {
    { MP_ROM_QSTR(MP_QSTR_poll), MP_ROM_PTR(&link_poll_obj) },
    { MP_ROM_QSTR(MP_QSTR_body), MP_ROM_PTR(&link_body_obj) },
    { MP_ROM_QSTR(MP_QSTR_reply), MP_ROM_PTR(&link_reply_obj) },
    { MP_ROM_QSTR(MP_QSTR_fail), MP_ROM_PTR(&link_fail_obj) },
    { MP_ROM_QSTR(MP_QSTR_refuse), MP_ROM_PTR(&link_refuse_obj) },
};
static MP_DEFINE_CONST_DICT(link_locals, link_locals_table);

MP_DEFINE_CONST_OBJ_TYPE(
    fl_mp_type_link,
    MP_QSTR_Link,
    MP_TYPE_FLAG_NONE,
    make_new, link_make_new,
    print, link_print,
    attr, link_attr,
    locals_dict, &link_locals
    );
