// What a job is made of: job.c has its life and the commands, job_train.c the training.
#ifndef FIELDLOOP_SERVER_JOB_H
#define FIELDLOOP_SERVER_JOB_H

#include "server/server.h"

#define FL_JOB_LOOKS_NOT UINT32_MAX  // fl_server_job_t.looking: no evaluation goes on

// The samples that travel with the image, in place.
typedef struct {
    const uint8_t *labels;  // [count]
    const int8_t *samples;  // [count, sample_bytes]
    uint32_t count;
    uint32_t sample_bytes;
} fl_job_samples_t;

fl_job_samples_t fl_job_samples(const fl_server_t *s);  // count 0: none

// A number of the request, 0 to 2^32 - 1 and at least `least`; `usual` where it is missing.
int fl_job_number(fl_server_t *s, const fl_cbor_t *body, const char *key, uint32_t least, uint32_t usual, uint32_t *v);
// The same where it must be there.
int fl_job_needed(fl_server_t *s, const fl_cbor_t *body, const char *key, uint32_t least, uint32_t *v);
bool fl_job_truth(const fl_cbor_t *body, const char *key);  // false where it is missing

// Predicts sample i; *right: the class is its label.
int fl_job_predict(fl_server_t *s, uint32_t i, bool *right);

// ---- job_train.c

// Which samples are held out, and the order of the others: by the learner's holdout.
int fl_job_split(fl_server_t *s, fl_server_job_t *job);
uint32_t fl_job_held_out(const fl_server_job_t *job, uint32_t i);

int fl_job_train_begin(fl_server_t *s, const fl_cbor_t *body, fl_server_job_t *job);
int fl_job_train_piece(fl_server_t *s, bool *over);
int fl_job_train_finish(fl_server_t *s);  // done or cancelled: the job's state tells

#endif
