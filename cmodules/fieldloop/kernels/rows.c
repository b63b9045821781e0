#include "rows.h"

void fl_walk_rows(const fl_broadcast_t *d, int32_t element_bytes, fl_row_t *row, const void *with, const void *a,
                  const void *b, void *out) {
    const int32_t bytes = element_bytes;
    uint8_t *to = out;
    for (int32_t i = 0; i < d->n[0]; i++) {
        for (int32_t j = 0; j < d->n[1]; j++) {
            for (int32_t k = 0; k < d->n[2]; k++) {
                const uint8_t *a_row = (const uint8_t *)a + (i * d->a[0] + j * d->a[1] + k * d->a[2]) * bytes;
                const uint8_t *b_row = (const uint8_t *)b + (i * d->b[0] + j * d->b[1] + k * d->b[2]) * bytes;
                row(with, d->n[3], a_row, d->a[3], b_row, d->b[3], to);
                to += d->n[3] * bytes;
            }
        }
    }
}
