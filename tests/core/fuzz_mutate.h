// Mutations of images: what fuzz_image.c tries.
#ifndef FIELDLOOP_TESTS_FUZZ_MUTATE_H
#define FIELDLOOP_TESTS_FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint8_t *bytes;
    size_t size;
} blob_t;

void fuzz_seed(uint64_t seed);
uint32_t fuzz_random(void);
uint32_t fuzz_below(uint32_t n);  // 0 for n = 0

// One to three changes of `b`, in place: bits, bytes, fields, pieces of `other`, whole records, the length. Then, mostly,
// what depends on them is set right: sizes of tensors, places in the plans, the CRC.
void fuzz_mutate(blob_t *b, const blob_t *other);

#endif
