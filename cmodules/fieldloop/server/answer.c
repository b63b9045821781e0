// One message in, one reply out: what needs no knowledge of models. The same as mod_link.c does for MicroPython, where
// the reply also has to find its way out.
#include <string.h>

#include "server/server.h"

enum { COMMAND_SESSION = 1 }; // opens a session and carries none

// A reply that is being made.
typedef struct {
    fl_server_t *s;
    fl_smp_t head; // of the request
    uint8_t *buf;
    size_t cap;
    bool counted;  // its session keeps the reply
    fl_cbor_w_t w;
} reply_t;

static void begin(reply_t *r) {
    fl_smp_t head = fl_smp_reply_to(&r->head);
    fl_smp_begin(&r->w, r->buf, r->cap, &head);
}

// Ends the message: with the check in our group. 0: it does not fit.
static int end(reply_t *r) {
    int len = r->head.group == r->s->config->group ? fl_smp_end(&r->w) : fl_smp_end_plain(&r->w);
    return len > 0 ? len : 0;
}

static int finish(reply_t *r) {
    int len = end(r);
    if (len == 0) {
        begin(r);
        fl_cbor_put_str(&r->w, "rc");
        fl_cbor_put_int(&r->w, FL_SMP_EMSGSIZE);
        len = end(r);
    }
    if (r->counted) {
        (void)fl_session_end(&r->s->session, r->buf + FL_SMP_HEADER, (size_t)len - FL_SMP_HEADER);
    }
    return len;
}

static int answer_rc(reply_t *r, int rc) {
    begin(r);
    fl_cbor_put_str(&r->w, "rc");
    fl_cbor_put_int(&r->w, rc);
    return finish(r);
}

static void begin_error(reply_t *r, int error, const char *text) {
    begin(r);
    fl_cbor_put_str(&r->w, "err");
    fl_cbor_put_map(&r->w, 2);
    fl_cbor_put_str(&r->w, "group");
    fl_cbor_put_int(&r->w, r->head.group);
    fl_cbor_put_str(&r->w, "rc");
    fl_cbor_put_int(&r->w, -error);
    fl_cbor_put_str(&r->w, "msg");
    fl_cbor_put_str(&r->w, text);
}

static int answer_error(reply_t *r, int error) {
    begin_error(r, error, r->s->text);
    if (r->s->lack.need > 0) {
        fl_cbor_put_str(&r->w, "need");
        fl_cbor_put_int(&r->w, r->s->lack.need);
        fl_cbor_put_str(&r->w, "have");
        fl_cbor_put_int(&r->w, r->s->lack.have);
    }
    return finish(r);
}

// ---- sessions

static int open_session(reply_t *r, const fl_cbor_t *map) {
    fl_session_t *session = &r->s->session;
    uint32_t nonce;
    if (fl_cbor_get_u32(map, "nonce", &nonce) != FL_OK) {
        begin_error(r, FL_EINVAL, "session: expected `nonce`, an unsigned 32-bit number");
        return finish(r);
    }
    begin(r);
    fl_cbor_put_str(&r->w, "s");
    fl_cbor_put_int(&r->w, fl_session_open(session, nonce));
    fl_cbor_put_str(&r->w, "n");
    fl_cbor_put_int(&r->w, session->last);
    fl_cbor_put_str(&r->w, "boot");
    fl_cbor_put_int(&r->w, session->boot);
    return finish(r);
}

// 0: run the call. Otherwise it was answered here, with so many bytes.
static int admit(reply_t *r, const fl_cbor_t *map) {
    fl_session_t *session = &r->s->session;
    uint32_t id = 0, n = 0;
    int result = FL_EINVAL;
    if (fl_cbor_get_u32(map, "s", &id) == FL_OK && fl_cbor_get_u32(map, "n", &n) == FL_OK) {
        result = fl_session_begin(session, id, n, r->head.cmd);
    }
    if (result == FL_SESSION_RUN) {
        r->counted = true;
        return 0;
    }
    if (result == FL_SESSION_REPEAT && session->len + FL_SMP_HEADER <= r->cap) {
        fl_smp_t head = fl_smp_reply_to(&r->head);
        head.length = (uint16_t)session->len;
        fl_smp_pack(r->buf, &head);
        memcpy(r->buf + FL_SMP_HEADER, session->reply, session->len);
        return (int)(FL_SMP_HEADER + session->len);
    }
    if (result == FL_SESSION_REPEAT) { // the home has less room than it had for the first
        return answer_rc(r, FL_SMP_EMSGSIZE);
    }
    begin_error(r, result, fl_session_text(result));
    fl_cbor_put_str(&r->w, "want");
    fl_cbor_put_int(&r->w, (int64_t)session->last + 1);
    fl_cbor_put_str(&r->w, "boot");
    fl_cbor_put_int(&r->w, session->boot);
    return finish(r);
}

// ---- a message

static int answer_ours(reply_t *r, const uint8_t *msg, size_t len) {
    bool write = r->head.op == FL_SMP_WRITE;
    int check = fl_smp_check(msg, len, NULL);
    if (check != FL_OK && !(check == FL_ENOENT && !write)) {
        return answer_rc(r, check == FL_EBADMSG ? FL_SMP_ECORRUPT : FL_SMP_EINVAL);
    }
    fl_cbor_t map = fl_cbor_over(msg + FL_SMP_HEADER, len - FL_SMP_HEADER);
    if (write && r->head.cmd == COMMAND_SESSION) {
        return open_session(r, &map);
    }
    // Before the session is asked: what is unknown uses no number.
    fl_command_t run = fl_server_command(write, r->head.cmd);
    if (run == NULL) {
        return answer_rc(r, FL_SMP_ENOTSUP);
    }
    int answered = write ? admit(r, &map) : 0;
    if (answered > 0) {
        return answered;
    }
    begin(r);
    int error = run(r->s, &map, &r->w);
    return error == FL_OK ? finish(r) : answer_error(r, error);
}

int fl_server_answer(fl_server_t *s, const uint8_t *msg, size_t len, uint8_t *reply, size_t cap) {
    reply_t r = {.s = s, .buf = reply, .cap = cap};
    // Another version of SMP, or a reply: not for us.
    if (fl_smp_unpack(msg, len, &r.head) != FL_OK || (r.head.op & 1u)) {
        return 0;
    }
    size_t most = s->config->buf_bytes - FL_DEFRAME_EXTRA; // either way
    r.cap = cap < most ? cap : most;
    if (r.head.group == FL_SERVER_GROUP_FILES) {
        return fl_server_answer_files(s, msg, len, reply, r.cap);
    }
    return r.head.group == s->config->group ? answer_ours(&r, msg, len) : answer_rc(&r, FL_SMP_ENOTSUP);
}
