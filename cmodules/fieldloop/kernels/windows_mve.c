#include "windows_mve.h"

#include "kernels/variants.h"

#if FL_KERNELS == 2

#include "mve.h"
#include "steps.h"

enum { ROWS = 4, BLOCK = 16 };

static void put_edge(int8_t *to, int32_t n, int8x16_t edge) {
    for (; n >= BLOCK; n -= BLOCK, to += BLOCK) {
        vstrbq_s8(to, edge);
    }
    if (n > 0) {
        vstrbq_p_s8(to, edge, vctp8q((uint32_t)n));
    }
}

// `n` blocks of 16 bytes from each row to 64 bytes.
static void transpose(const int8_t *from[ROWS], const int32_t step[ROWS], int32_t n, int8_t *to) {
    const int8_t *r0 = from[0], *r1 = from[1], *r2 = from[2], *r3 = from[3];
    for (; n > 0; n--, to += ROWS * BLOCK) {
        const int8x16x4_t v = {{vldrbq_s8(r0), vldrbq_s8(r1), vldrbq_s8(r2), vldrbq_s8(r3)}};
        vst4q_s8(to, v);
        r0 += step[0];
        r1 += step[1];
        r2 += step[2];
        r3 += step[3];
    }
    from[0] = r0;
    from[1] = r1;
    from[2] = r2;
    from[3] = r3;
}

// Of each block the first `bytes`, at most 16; blocks lie `next` apart, and the last is written whole.
static void transpose_some(const int8_t *from[ROWS], const int32_t step[ROWS], int32_t n, int32_t bytes, int8_t *to,
                           int32_t next) {
    const mve_pred16_t some = vctp8q((uint32_t)bytes);
    for (; n > 0; n--, to += next) {
        int8x16x4_t v;
        for (int32_t r = 0; r < ROWS; r++) {
            v.val[r] = vldrbq_z_s8(from[r], some);
            from[r] += step[r];
        }
        vst4q_s8(to, v);
        __asm__("" : "+r"(to));  // else gcc 12 stores and adds `next` in one instruction, which there is none for
    }
}

// Columns `left` to `end` of the window lie on the map, `from` points to the first.
static void put_columns(const fl_windows_mve_t *v, const fl_map_dims_t *d, const int8_t *from[ROWS],
                        const int32_t on_map[ROWS], int32_t x_step, int32_t n, int32_t ic, int8_t *to) {
    int32_t step[ROWS];
    const int32_t all = d->in_c <= BLOCK && x_step == d->in_c;  // columns follow each other without a gap
    const int32_t block = all ? BLOCK : x_step;
    for (int32_t r = 0; r < ROWS; r++) {
        step[r] = on_map[r] ? block : 0;
    }
    if (all) {
        const int32_t bytes = n * v->channels;
        transpose(from, step, bytes / BLOCK, to);
        if (bytes % BLOCK) {
            transpose_some(from, step, 1, bytes % BLOCK, to + bytes / BLOCK * ROWS * BLOCK, 0);
        }
    } else if (d->in_c - ic >= BLOCK) {
        // the last pointers formed lie behind the map
        transpose(from, step, n, to);
    } else {
        transpose_some(from, step, n, d->in_c - ic, to, ROWS * v->channels);
    }
}

void fl_windows_fill_mve(const fl_windows_mve_t *v, const fl_conv_params_t *p, const fl_map_dims_t *d, const int8_t *x,
                         const int8_t *edge, const int32_t *oy, int32_t count, int32_t ox, int32_t ic, int8_t *to) {
    const int8x16_t zeros = vldrbq_s8(edge);
    const int32_t width = 4 * v->channels, x_step = fl_x_step(d);
    const int32_t x0 = ox * p->stride_w - p->pad_left;
    int32_t left = x0 < 0 ? -x0 : 0;
    left = left < v->cols ? left : v->cols;
    int32_t end = d->in_w - x0 < v->cols ? d->in_w - x0 : v->cols;
    end = end < left ? left : end;
    for (; count > 0; count--, oy++) {
        const int8_t *from[ROWS];
        int32_t on_map[ROWS];
        for (int32_t r = 0; r < ROWS; r++) {
            // rows behind the kernel's are multiplied with nothing
            const int32_t seen = r < p->kernel_h + v->two;
            const int32_t y = *oy * p->stride_h - p->pad_top + (seen ? r * p->dilation_h : 0);
            on_map[r] = seen && y >= 0 && y < d->in_h && end > left;
            from[r] = on_map[r] ? x + (y * d->in_w + x0 + left) * x_step + ic : edge;
        }
        if (end > left) {
            put_columns(v, d, from, on_map, x_step, end - left, ic, to + left * width);
        }
        put_edge(to, left * width, zeros);
        put_edge(to + end * width, (v->cols - end) * width, zeros);
        to += v->cols * width;
    }
}

#else
typedef int fl_no_windows_mve_t;  // a translation unit may not be empty
#endif
