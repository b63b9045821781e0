// Sums over runs of neighbouring int8: what all kernels of 16-bit deltas come down to. Unsigned, so that a sum may wrap on
// its way as long as the end fits 32 bits (which fl_q_headroom sees to).
#ifndef FIELDLOOP_LEARN_Q_RUNS_H
#define FIELDLOOP_LEARN_Q_RUNS_H

#include <stdint.h>

// sums[j] += t * run[j]
void fl_q_add_run(uint32_t *sums, const int8_t *run, uint32_t t, uint32_t n);

// Runs that go to the same sums are gathered by four: one load and one store of a sum for four products.
typedef struct {
    uint32_t *sums;  // [n]
    uint32_t n;
    int32_t zero;  // taken off every element of a run
    uint32_t count;
    uint32_t t[4];
    const int8_t *run[4];
} fl_q_runs_t;

// sums[j] += t * (run[j] - zero), now or by fl_q_finish_runs.
void fl_q_gather_run(fl_q_runs_t *g, const int8_t *run, int32_t t);
void fl_q_finish_runs(fl_q_runs_t *g);

#endif
