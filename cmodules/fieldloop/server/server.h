// Inside the server. Calls answer FL_OK or an error with the reason in s->text (fl_server_refuse).
#ifndef FIELDLOOP_SERVER_SERVER_H
#define FIELDLOOP_SERVER_SERVER_H

#include "fieldloop/fl_server.h"

// A command: reads its request's map, puts the pairs of its reply. A failed one may have put some: they are dropped.
typedef int (*fl_command_t)(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);

// The command of a read or write request of our group; NULL: there is none (commands.c).
fl_command_t fl_server_command(bool write, uint8_t number);

// ---- refuse.c
// Formats s->text and returns `error`. `lack` is left 0, 0.
int fl_server_refuse(fl_server_t *s, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
// The same for what does not fit; the host is told both numbers, bytes.
int fl_server_lacks(fl_server_t *s, int error, uint32_t need, uint32_t have, const char *what);
// The reason of a failure, kept while what is done about it may find reasons of its own.
typedef struct {
    char text[FL_SERVER_TEXT];
    uint32_t need, have;
} fl_reason_t;
fl_reason_t fl_server_reason(const fl_server_t *s);
void fl_server_tell(fl_server_t *s, const fl_reason_t *reason);

// ---- count.c: executed instructions between begin and end; end puts them as `ins`, null when begin could not count
bool fl_server_count_begin(const fl_server_t *s);
void fl_server_count_end(const fl_server_t *s, bool counts, fl_cbor_w_t *w);

// ---- request.c: an entry of the request's map; refused when it is missing or something else
int fl_server_get_u32(fl_server_t *s, const fl_cbor_t *body, const char *key, uint32_t *v);
int fl_server_get_bytes(fl_server_t *s, const fl_cbor_t *body, const char *key, const uint8_t **p, size_t *n);
int fl_server_get_text(fl_server_t *s, const fl_cbor_t *body, const char *key, const char **p, size_t *n);

// ---- records.c: the store, mounted again when its flash failed before; the reason of an error in s->text
int fl_server_mount(fl_server_t *s, const uint8_t (*uids)[FL_STORE_UID_BYTES], uint32_t count);
// FL_ENOENT without a text when there is none.
int fl_server_find(fl_server_t *s, uint16_t type, const uint8_t uid[FL_STORE_UID_BYTES], unsigned nth,
    fl_store_rec_t *rec);
int fl_server_read(fl_server_t *s, const fl_store_rec_t *rec, uint32_t off, void *buf, uint32_t n);
int fl_server_append(fl_server_t *s, uint16_t type, const uint8_t uid[FL_STORE_UID_BYTES],
    const fl_store_piece_t *pieces, size_t count);
int fl_server_copy(fl_server_t *s, const fl_store_rec_t *rec);
int fl_server_store_refuse(fl_server_t *s, int error); // the text for an error of the store

// ---- models.c: slots and the active model
int fl_server_slot_named(fl_server_t *s, const char *name, size_t len); // its index, or FL_ENOENT
uint32_t fl_server_slot_bytes(const fl_server_t *s, uint32_t slot);     // capacity
uint32_t fl_server_image_in(const fl_server_t *s, uint32_t slot);       // bytes of the image it says it holds; 0: none
void fl_server_sha_of(const fl_server_t *s, uint32_t slot, uint32_t len, uint8_t sha[32]);
const uint8_t *fl_server_uid(const fl_server_t *s); // of the active model
void fl_server_open_active(fl_server_t *s);
void fl_server_close(fl_server_t *s); // lets go of learner and model; what is in slots and store stays
int fl_server_need_model(fl_server_t *s);
int fl_server_need_learner(fl_server_t *s);
int fl_server_need_no_job(fl_server_t *s, bool but_paused);
int fl_server_samples(fl_server_t *s, size_t x_bytes, uint32_t *count); // how many samples the bytes are
void fl_server_put_model(const fl_server_t *s, fl_cbor_w_t *w);         // the model map
int fl_server_activate(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
// Runs the model on one sample that lies in its input already; the class of the highest output, or an error.
int fl_server_run(fl_server_t *s);

// ---- push.c
int fl_server_push(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
// One chunk: what push and the file group share. Afterwards s->push_next is the offset expected next, and at the end
// s->match tells whether all is there as it should be. `sha` NULL: unknown, then the image's own CRC decides; such a push
// begins anew at off 0, always; `length` counts only there.
int fl_server_push_chunk(fl_server_t *s, uint32_t slot, uint32_t off, const uint8_t *data, size_t n, uint32_t length,
    const uint8_t *sha);

// ---- keeper.c: learner and store (device/fieldloop/learner.py)
// Opens the learner of the newest commit, if there is one: then s->has_learner. An error is a reason why what was
// learned is not in use.
int fl_server_resume(fl_server_t *s);
void fl_server_close_learner(fl_server_t *s);

// ---- learn.c: commands of the learner
int fl_server_stats(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_learner(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_step(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_count(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_commit(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_undo(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_reset(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_restore(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);

// ---- ram.c: what the arena and the learner take, and touch
int fl_server_read_mem(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
// Bytes of config.memory behind arena and learner; *at is where they begin. Jobs keep a best state there.
uint32_t fl_server_spare(const fl_server_t *s, uint8_t **at);
int fl_server_write_mem(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);

// ---- job.c
int fl_server_read_job(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);
int fl_server_write_job(fl_server_t *s, const fl_cbor_t *body, fl_cbor_w_t *w);

// ---- files.c: group 8
// Answers a whole message of FL_SERVER_GROUP_FILES; the reply's length.
int fl_server_answer_files(fl_server_t *s, const uint8_t *msg, size_t len, uint8_t *reply, size_t cap);

#endif
