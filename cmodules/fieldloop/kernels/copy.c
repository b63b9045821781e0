// Moves of elements: what reshape, concat, pad, transpose and slice come down to.
#include <string.h>

#include "fieldloop/fl_kernels.h"

static void copy_row(int32_t n, uint32_t bytes, const uint8_t *x, int32_t x_step, uint8_t *out, int32_t out_step) {
    if (x_step == 1 && out_step == 1) {
        memcpy(out, x, (uint32_t)n * bytes);
    } else if (bytes == 1) {
        for (int32_t i = 0; i < n; i++) {
            out[i * out_step] = x[i * x_step];
        }
    } else {
        for (int32_t i = 0; i < n; i++) {
            memcpy(out + i * out_step * 4, x + i * x_step * 4, 4);
        }
    }
}

void fl_copy(const fl_copy_dims_t *dims, uint32_t bytes, const void *x, void *out) {
    fl_copy_dims_t d = *dims;
    // rows that follow each other on both sides are one row
    for (int32_t axis = 2; axis >= 0; axis--) {
        if (d.x[3] == 1 && d.out[3] == 1 && (d.n[axis] == 1 || (d.x[axis] == d.n[3] && d.out[axis] == d.n[3]))) {
            d.n[3] *= d.n[axis];
            d.n[axis] = 1;
        } else {
            break;
        }
    }
    const int32_t size = (int32_t)bytes;
    for (int32_t i = 0; i < d.n[0]; i++) {
        for (int32_t j = 0; j < d.n[1]; j++) {
            for (int32_t k = 0; k < d.n[2]; k++) {
                copy_row(d.n[3], bytes, (const uint8_t *)x + (i * d.x[0] + j * d.x[1] + k * d.x[2]) * size, d.x[3],
                         (uint8_t *)out + (i * d.out[0] + j * d.out[1] + k * d.out[2]) * size, d.out[3]);
            }
        }
    }
}

void fl_fill(int32_t n, uint32_t bytes, int32_t value, void *out) {
    if (bytes == 1) {
        memset(out, value, (uint32_t)n);
        return;
    }
    uint8_t *to = out;
    for (; n >= 4; n -= 4, to += 16) {  // accumulators begin with it
        memcpy(to, &value, 4);
        memcpy(to + 4, &value, 4);
        memcpy(to + 8, &value, 4);
        memcpy(to + 12, &value, 4);
    }
    for (; n > 0; n--, to += 4) {
        memcpy(to, &value, 4);
    }
}

enum { BLOCK = 16 };

// A block is read whole before it is written, so the two may overlap as long as the walk goes towards `from`'s far end.
static void move_block(uint8_t *to, const uint8_t *from) {
    uint32_t a, b, c, d;
    memcpy(&a, from, 4);
    memcpy(&b, from + 4, 4);
    memcpy(&c, from + 8, 4);
    memcpy(&d, from + 12, 4);
    memcpy(to, &a, 4);
    memcpy(to + 4, &b, 4);
    memcpy(to + 8, &c, 4);
    memcpy(to + 12, &d, 4);
}

void fl_move(uint32_t bytes, const void *x, void *out) {
    const uint8_t *from = x;
    uint8_t *to = out;
    if (to < from) {
        for (; bytes >= BLOCK; bytes -= BLOCK) {
            move_block(to, from);
            from += BLOCK;
            to += BLOCK;
        }
        while (bytes-- > 0) {
            *to++ = *from++;
        }
        return;
    }
    from += bytes;
    to += bytes;
    for (; bytes >= BLOCK; bytes -= BLOCK) {
        from -= BLOCK;
        to -= BLOCK;
        move_block(to, from);
    }
    while (bytes-- > 0) {
        *--to = *--from;
    }
}
