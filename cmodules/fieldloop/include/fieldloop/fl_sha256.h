// SHA-256 (FIPS 180-4), in pieces: what a pushed model must match before it is activated.
//
//     fl_sha256_t st;
//     fl_sha256_init(&st);
//     fl_sha256_update(&st, data, n);      // as often as wanted
//     fl_sha256_final(&st, digest);        // ends it; init again to reuse
#ifndef FIELDLOOP_FL_SHA256_H
#define FIELDLOOP_FL_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define FL_SHA256_BYTES 32

typedef struct {
    uint32_t h[8];
    uint64_t total;    // bytes hashed so far
    uint8_t block[64]; // the first total % 64 bytes wait here
} fl_sha256_t;

void fl_sha256_init(fl_sha256_t *st);
void fl_sha256_update(fl_sha256_t *st, const void *p, size_t n);
void fl_sha256_final(fl_sha256_t *st, uint8_t digest[FL_SHA256_BYTES]);

#endif
