// Inside the server. Calls answer FL_OK or an error with the reason in s->text (fl_server_refuse).
#ifndef FIELDLOOP_SERVER_SERVER_H
#define FIELDLOOP_SERVER_SERVER_H

#include "fieldloop/fl_server.h"

// A command: reads its request's map, puts the pairs of its reply. A failed one may have put some: they are dropped.
typedef int (*fl_command_t)(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);

// Formats s->text and returns `error`. `lack` is left 0, 0.
int fl_server_refuse(fl_server_t *s, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
// The same for what does not fit; the host is told both numbers, bytes.
int fl_server_lacks(fl_server_t *s, int error, uint32_t need, uint32_t have, const char *what);

// ---- models.c: slots and the active model
int fl_server_slot_named(fl_server_t *s, const char *name, size_t len); // its index, or FL_ENOENT
uint32_t fl_server_slot_bytes(const fl_server_t *s, uint32_t slot);     // capacity
uint32_t fl_server_image_in(const fl_server_t *s, uint32_t slot);       // bytes of the image it says it holds; 0: none
void fl_server_sha_of(const fl_server_t *s, uint32_t slot, uint32_t len, uint8_t sha[32]);
void fl_server_open_active(fl_server_t *s);
void fl_server_close(fl_server_t *s); // lets go of learner and model; what is in slots and store stays
int fl_server_need_model(fl_server_t *s);
int fl_server_need_learner(fl_server_t *s);
int fl_server_need_no_job(fl_server_t *s, bool but_paused);
int fl_server_samples(fl_server_t *s, size_t x_bytes, uint32_t *count); // how many samples the bytes are
void fl_server_put_model(const fl_server_t *s, fl_cbor_w_t *w);         // the model map
int fl_server_activate(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);

// ---- push.c
int fl_server_push(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
// One chunk: what push and the file group share. `sha` NULL: unknown, then the image's own CRC decides `match`.
int fl_server_push_chunk(fl_server_t *s, uint32_t slot, uint32_t off, const uint8_t *data, size_t n, uint32_t length,
    const uint8_t *sha);

// ---- keeper.c: learner and store (device/fieldloop/learner.py)
void fl_server_resume(fl_server_t *s); // opens the learner of the newest commit, if there is one
void fl_server_close_learner(fl_server_t *s);

// ---- job.c
int fl_server_read_job(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_job(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);

// ---- files.c: group 8
// Answers a whole message of FL_SERVER_GROUP_FILES; the reply's length.
int fl_server_answer_files(fl_server_t *s, const uint8_t *msg, size_t len, uint8_t *reply, size_t cap);

// Bytes of config.memory behind arena and learner; *at is where they begin. Jobs keep a best state there.
uint32_t fl_server_spare(const fl_server_t *s, uint8_t **at);

#endif
