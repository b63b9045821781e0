// The inner loops of the 16-bit backward pass.
#include "learn/q_runs.h"

void fl_q_add_run(int32_t *restrict sums_, const int8_t *restrict run, int32_t t_, int32_t n) {
    uint32_t *restrict sums = (uint32_t *)sums_;
    const uint32_t t = (uint32_t)t_;
    // pairs: a processor has instructions that load and store two words
    for (; n >= 4; n -= 4, sums += 4, run += 4) {
        const uint32_t a = sums[0] + t * (uint32_t)run[0];
        const uint32_t b = sums[1] + t * (uint32_t)run[1];
        sums[0] = a;
        sums[1] = b;
        const uint32_t c = sums[2] + t * (uint32_t)run[2];
        const uint32_t d = sums[3] + t * (uint32_t)run[3];
        sums[2] = c;
        sums[3] = d;
    }
    for (; n > 0; n--) {
        *sums++ += t * (uint32_t)*run++;
    }
}

void fl_q_add_run_twice(int32_t *restrict sums_a, int32_t *restrict sums_b, const int8_t *restrict run, int32_t ta_,
                        int32_t tb_, int32_t n) {
    uint32_t *restrict a = (uint32_t *)sums_a, *restrict b = (uint32_t *)sums_b;
    const uint32_t ta = (uint32_t)ta_, tb = (uint32_t)tb_;
    for (; n >= 2; n -= 2, a += 2, b += 2, run += 2) {
        const uint32_t w0 = (uint32_t)run[0], w1 = (uint32_t)run[1];
        const uint32_t a0 = a[0] + ta * w0, a1 = a[1] + ta * w1;
        a[0] = a0;
        a[1] = a1;
        const uint32_t b0 = b[0] + tb * w0, b1 = b[1] + tb * w1;
        b[0] = b0;
        b[1] = b1;
    }
    if (n > 0) {
        *a += ta * (uint32_t)*run;
        *b += tb * (uint32_t)*run;
    }
}

void fl_q_add_centred_run(int32_t *restrict sums_, const int8_t *restrict run, int32_t zero, int32_t t_, int32_t n) {
    uint32_t *restrict sums = (uint32_t *)sums_;
    const uint32_t t = (uint32_t)t_;
    const uint32_t offset = (uint32_t)-zero * t;
    for (; n >= 2; n -= 2, sums += 2, run += 2) {
        const uint32_t a = sums[0] + offset + t * (uint32_t)run[0];
        const uint32_t b = sums[1] + offset + t * (uint32_t)run[1];
        sums[0] = a;
        sums[1] = b;
    }
    if (n > 0) {
        *sums += offset + t * (uint32_t)*run;
    }
}

void fl_q_add_four_runs(const fl_q_runs_t *g) {
    uint32_t *restrict sums = (uint32_t *)g->sums;
    const int8_t *restrict a = g->run[0];
    const int8_t *restrict b = g->run[1];
    const int8_t *restrict c = g->run[2];
    const int8_t *restrict d = g->run[3];
    const uint32_t ta = (uint32_t)g->t[0], tb = (uint32_t)g->t[1], tc = (uint32_t)g->t[2], td = (uint32_t)g->t[3];
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

void fl_q_finish_runs(fl_q_runs_t *g) {
    if (g->count == 3) {
        g->t[3] = 0;
        g->run[3] = g->run[0];
        fl_q_add_four_runs(g);
    } else {
        for (int32_t i = 0; i < g->count; i++) {
            fl_q_add_centred_run(g->sums, g->run[i], g->zero, g->t[i], g->n);
        }
    }
    g->count = 0;
}
