// The inner loops of the 16-bit backward pass.
#include "learn/q_runs.h"

void fl_q_add_run(uint32_t *restrict sums, const int8_t *restrict run, uint32_t t, uint32_t n) {
    for (; n >= 4; n -= 4, sums += 4, run += 4) {
        const uint32_t a = sums[0] + t * (uint32_t)run[0];
        const uint32_t b = sums[1] + t * (uint32_t)run[1];
        const uint32_t c = sums[2] + t * (uint32_t)run[2];
        const uint32_t d = sums[3] + t * (uint32_t)run[3];
        sums[0] = a;
        sums[1] = b;
        sums[2] = c;
        sums[3] = d;
    }
    for (; n > 0; n--) {
        *sums++ += t * (uint32_t)*run++;
    }
}

static void add_four(fl_q_runs_t *g) {
    uint32_t *restrict sums = g->sums;
    const int8_t *restrict a = g->run[0];
    const int8_t *restrict b = g->run[1];
    const int8_t *restrict c = g->run[2];
    const int8_t *restrict d = g->run[3];
    const uint32_t ta = g->t[0], tb = g->t[1], tc = g->t[2], td = g->t[3];
    const uint32_t offset = (uint32_t)-g->zero * (ta + tb + tc + td);
    for (uint32_t *end = sums + g->n; sums != end; sums++) {
        uint32_t sum = *sums + offset;
        sum += ta * (uint32_t)*a++;
        sum += tb * (uint32_t)*b++;
        sum += tc * (uint32_t)*c++;
        sum += td * (uint32_t)*d++;
        *sums = sum;
    }
}

void fl_q_gather_run(fl_q_runs_t *g, const int8_t *run, int32_t t) {
    if (t == 0) {
        return;
    }
    g->t[g->count] = (uint32_t)t;
    g->run[g->count++] = run;
    if (g->count == 4) {
        add_four(g);
        g->count = 0;
    }
}

void fl_q_finish_runs(fl_q_runs_t *g) {
    if (g->count == 0) {
        return;
    }
    for (uint32_t i = g->count; i < 4; i++) {
        g->t[i] = 0;
        g->run[i] = g->run[0];
    }
    add_four(g);
    g->count = 0;
}
