// Sums over runs of neighbouring int8: what the kernels of 16-bit deltas come down to. Worked out unsigned, so that a sum may
// wrap on its way as long as the end fits 32 bits (which fl_q_headroom sees to).
#ifndef FIELDLOOP_LEARN_Q_RUNS_H
#define FIELDLOOP_LEARN_Q_RUNS_H

#include <stdint.h>

// sums[j] += t * run[j]
void fl_q_add_run(int32_t *sums, const int8_t *run, int32_t t, int32_t n);
// The same run to two places that do not overlap.
void fl_q_add_run_twice(int32_t *sums_a, int32_t *sums_b, const int8_t *run, int32_t ta, int32_t tb, int32_t n);
// sums[j] += t * (run[j] - zero)
void fl_q_add_centred_run(int32_t *sums, const int8_t *run, int32_t zero, int32_t t, int32_t n);

// Runs that go to the same sums are gathered by four: one load and one store of a sum for four products.
typedef struct {
    int32_t *sums;  // [n]
    int32_t n;
    int32_t zero;  // taken off every element of a run
    int32_t count;
    int32_t t[4];
    const int8_t *run[4];
} fl_q_runs_t;

static inline void fl_q_start_runs(fl_q_runs_t *g, int32_t *sums, int32_t n, int32_t zero) {
    g->sums = sums;
    g->n = n;
    g->zero = zero;
    g->count = 0;
}

void fl_q_add_four_runs(const fl_q_runs_t *g);
// What is left of less than four.
void fl_q_finish_runs(fl_q_runs_t *g);

// sums[j] += t * (run[j] - zero), now or by fl_q_finish_runs.
static inline void fl_q_gather_run(fl_q_runs_t *g, const int8_t *run, int32_t t) {
    g->t[g->count] = t;
    g->run[g->count] = run;
    g->count++;
    if (g->count == 4) {
        fl_q_add_four_runs(g);
        g->count = 0;
    }
}

// Which taps first..end-1 of a line of a window, undilated, lie on 0..size-1; it starts at `start`. None: end <= first.
typedef struct {
    int32_t first, end;
} fl_q_line_t;

static inline fl_q_line_t fl_q_line(int32_t start, int32_t kernel, int32_t size) {
    const int32_t room = size - start;
    return (fl_q_line_t){start < 0 ? -start : 0, room < kernel ? room : kernel};
}

#endif
