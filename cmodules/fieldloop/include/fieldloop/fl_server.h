// The device server in C: what device/fieldloop/server.py is on MicroPython, for homes without an interpreter.
//
// The same commands, the same bytes: docs/SPEC-link.md section 6 is the manual of both, and the records that they keep in
// the store are each other's. It knows no port, no thread and no clock: the home receives a message (fl_link.h, or
// MCUmgr), hands it in, and sends what comes out.
//
//     fl_server_open(&s, &config);                       // mounts the store, opens the active model and its learner
//     for (;;) {
//         if (message received) { n = fl_server_answer(&s, msg, len, reply, sizeof(reply)); send(reply, n); }
//         else if (fl_server_busy(&s)) { fl_server_advance(&s); }    // one sample of a job
//         else { wait for a message }
//     }
//
// One owner: every call comes from the same thread, or under one lock. Nothing is allocated, nothing is static.
// Model arena and learner lie in config.memory, the image is executed in place in its slot. The stack: what opening a
// learner takes, sizeof(fl_learner_t) and 3 KiB.
//
//     memory  0 +---------+  arena: of the image's plan for inference, with a learner open of that for learning
//               | learner |  its block, to 16
//               +---------+  spare: `free` of info. A job keeps its best state here, a stored state is read to here
//               |         |  before it takes effect, so that what cannot be taken over changes nothing
//               +---------+  memory_bytes
//
// Where the spare memory has no room for a state, a stored one is taken over in place: after its header was looked at
// and its CRC was right, so that what belongs to other settings or is damaged still changes nothing. Only a flash that
// fails between the two reads then costs what was learned since the last commit: the factory's weights are in use, and
// the error says so.
#ifndef FIELDLOOP_FL_SERVER_H
#define FIELDLOOP_FL_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fieldloop/fl_learn.h"
#include "fieldloop/fl_link.h"
#include "fieldloop/fl_slot.h"
#include "fieldloop/fl_store.h"

#define FL_SERVER_VERSION "0.1.0" // told by `info`

enum {
    FL_SERVER_STATE = 1,     // store records of a model: what was learned; empty = the factory's weights
    FL_SERVER_ACTIVE = 2,    // of uid 0: u32 image bytes, sha256[32], uid[16], name of the slot
    FL_SERVER_SETTINGS = 3,  // fl_learner_config_t as it is
    FL_SERVER_TEXT = 160,    // bytes of a message, NUL included
    FL_SERVER_NAME = 16,     // bytes of a slot's name, NUL included
    FL_SERVER_REPLY = 384,   // largest reply of a state-changing call that can be asked for again
    FL_SERVER_GROUP_FILES = 8,  // MCUmgr's file management: push and pull for any SMP client
};

// A place for a model image: a partition that can be written through `flash` and read as memory.
typedef struct {
    const char *name;         // "model0"; at most FL_SERVER_NAME - 1 bytes
    const fl_flash_t *flash;
    const uint8_t *bytes;     // the partition in memory, 16-byte aligned; the image begins at its first byte
} fl_server_slot_t;

// All of it is the caller's and outlives the server.
typedef struct {
    const fl_server_slot_t *slots;
    uint32_t slot_count;      // at least 1
    const fl_flash_t *store;  // what is learned, and which model is active
    uint8_t *memory;          // arena and learner; 16-byte aligned
    uint32_t memory_bytes;
    const char *board;        // told by `info`
    const char *os;           // told by `info`, for example "zephyr 4.2.0"
    uint32_t boot;            // unlike that of the boot before
    uint32_t buf_bytes;       // of the receive buffer: a message has FL_DEFRAME_EXTRA less. 256 to 65535
    uint16_t group;           // FL_LINK_GROUP
    // Both or neither: counts executed instructions between begin and end. False: it cannot.
    bool (*count_begin)(void *ctx);
    uint64_t (*count_end)(void *ctx);
    // NULL: zeros. The port's counters: frames, bad frames, noise bytes, lost bytes.
    void (*port_counters)(void *ctx, uint32_t counters[4]);
    void *ctx;
} fl_server_config_t;

// ---- private to server/, here so that the caller can give it room

typedef enum { FL_JOB_NONE = 0, FL_JOB_TRAIN, FL_JOB_EVALUATE, FL_JOB_SELFTEST } fl_job_kind_t;
typedef enum { FL_JOB_RUNNING = 0, FL_JOB_PAUSED, FL_JOB_DONE, FL_JOB_CANCELLED, FL_JOB_FAILED } fl_job_state_t;

// Long work in pieces of one sample (device/fieldloop/jobs.py).
typedef struct {
    uint32_t kind;                 // fl_job_kind_t
    uint32_t state;                // fl_job_state_t
    uint32_t id, done, of;
    uint32_t right, total;         // of the newest evaluation
    uint32_t every, patience;      // of train
    uint32_t held, own, stride, split;  // which samples are held out: see Split in jobs.py
    uint32_t hit, looks, best, misses;
    uint32_t looking, so_far;      // looking: held-out samples seen of an evaluation; UINT32_MAX: none goes on
    uint32_t seq;                  // of the record that it committed
    bool commit, early, back, kept, committed;
    char text[FL_SERVER_TEXT];     // "" : none
} fl_server_job_t;

typedef struct {
    const fl_server_config_t *config;
    fl_session_t session;
    uint8_t kept[FL_SERVER_REPLY];
    fl_store_t store;
    // what the store was mounted for, and is again after a failure of its flash; 0: every model's records
    uint8_t mounted[3][FL_STORE_UID_BYTES];
    uint32_t mounted_count;
    // the active model
    bool has_model;
    uint32_t active;               // its slot
    uint32_t image_bytes;
    uint8_t sha[32];
    fl_model_t model;
    // its learner
    bool has_learner;
    bool restored;
    uint32_t seq;                  // number of the commit that the weights came from; 0: the factory's
    fl_learner_t learner;
    // a push under way or done
    bool pushing, match;
    bool push_named;               // its SHA-256 was told; a file's upload tells none
    uint32_t push_slot, push_length, push_next;
    uint8_t push_sha[32];
    fl_slot_t writer;
    fl_server_job_t job;
    uint32_t jobs;                 // since the start
    int32_t paint;                 // -1: never painted
    char fault[FL_SERVER_TEXT];    // why the active model or its learned state could not be used; "": nothing
    char text[FL_SERVER_TEXT];     // why the last call failed
    struct { uint32_t need, have; } lack;  // with FL_ENOMEM and FL_ENOSPC; 0, 0: not told
} fl_server_t;

// ---- life

// A model or learner that cannot be used is no error here: s->fault says why, and `info` tells. FL_EINVAL: the config
// breaks a rule above, and the server is not open. What mounting the store answers, when it cannot be mounted: the server
// is open, without a model, and each call that needs the store tries to mount it again.
int fl_server_open(fl_server_t *s, const fl_server_config_t *config);

// One message of our group or of FL_SERVER_GROUP_FILES, header first, of any bytes whatsoever. Writes the reply, header
// first, into reply (cap bytes, at least 256) and returns its length; 0: not for us, nothing to send.
int fl_server_answer(fl_server_t *s, const uint8_t *msg, size_t len, uint8_t *reply, size_t cap);

// A job has a piece to do; and does it.
bool fl_server_busy(const fl_server_t *s);
void fl_server_advance(fl_server_t *s);

// ---- what the firmware itself asks (shell, sensor): 0 or an error, and s->text says why

// x: int8 [input bytes]; y: int8 [output bytes], may be NULL. Returns the class of the highest output.
int fl_server_predict(fl_server_t *s, const int8_t *x, size_t x_bytes, int8_t *y, size_t y_bytes);
// Real values [elements of the input], quantised as the model wants them; otherwise as above.
int fl_server_predict_f32(fl_server_t *s, const float *x, size_t count, int8_t *y, size_t y_bytes);
// `step` may be NULL. FL_ENOENT: no model, or no learner is open. FL_EBUSY: a job runs.
int fl_server_step(fl_server_t *s, const int8_t *x, size_t x_bytes, uint32_t label, fl_step_t *step);
int fl_server_step_f32(fl_server_t *s, const float *x, size_t count, uint32_t label, fl_step_t *step);
// Opens a learner with these settings; the one before is closed if all is well, else it stays or the newest commit's
// comes back. Goes on from the newest commit of the same model and settings.
int fl_server_learner_open(fl_server_t *s, const fl_learner_config_t *config);
// Writes what was learned (and flushes a batch). *seq may be NULL.
int fl_server_commit(fl_server_t *s, uint32_t *seq);
int fl_server_undo(fl_server_t *s, uint32_t *seq);
int fl_server_reset(fl_server_t *s, uint32_t *seq);
int fl_server_restore(fl_server_t *s, uint32_t *seq);

// fl_learner_config_t by names, as `learner_open` and the shell have them. FL_ENOENT: no such setting; FL_EINVAL: not a
// value of it. `text` gets the reason.
int fl_server_setting(fl_learner_config_t *config, const char *name, size_t name_len, fl_cbor_t value,
    char text[FL_SERVER_TEXT]);

#endif
