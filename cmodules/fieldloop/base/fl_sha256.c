#include "fieldloop/fl_sha256.h"

#include <string.h>

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
static const uint32_t round_constant[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u,
    0xab1c5ed5u, 0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu,
    0x9bdc06a7u, 0xc19bf174u, 0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu,
    0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau, 0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u,
    0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u, 0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu,
    0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u, 0xa2bfe8a1u, 0xa81a664bu,
    0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u, 0x19a4c116u,
    0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u,
    0xc67178f2u,
};

static uint32_t rotate(uint32_t x, unsigned n) {
    return (x >> n) | (x << (32u - n));
}

static void compress(uint32_t h[8], const uint8_t block[64]) {
    uint32_t w[16];
    for (size_t i = 0; i < 16; i++) {
        const uint8_t *b = block + 4 * i;
        w[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    }
    uint32_t s[8];
    memcpy(s, h, sizeof s);
    for (size_t i = 0; i < 64; i++) {
        // The message schedule is kept as a ring of 16 words: 64 bytes of stack, not 256.
        uint32_t wi = w[i & 15];
        if (i >= 16) {
            uint32_t w15 = w[(i + 1) & 15];
            uint32_t w2 = w[(i + 14) & 15];
            wi += (rotate(w15, 7) ^ rotate(w15, 18) ^ (w15 >> 3)) + w[(i + 9) & 15] +
                  (rotate(w2, 17) ^ rotate(w2, 19) ^ (w2 >> 10));
            w[i & 15] = wi;
        }
        uint32_t e1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
        uint32_t choose = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t t1 = s[7] + e1 + choose + round_constant[i] + wi;
        uint32_t e0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
        uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        // Written out: on a microcontroller memmove may go byte by byte, and take longer than the rest.
        s[7] = s[6];
        s[6] = s[5];
        s[5] = s[4];
        s[4] = s[3] + t1;
        s[3] = s[2];
        s[2] = s[1];
        s[1] = s[0];
        s[0] = t1 + e0 + majority;
    }
    for (size_t i = 0; i < 8; i++) {
        h[i] += s[i];
    }
}

void fl_sha256_init(fl_sha256_t *st) {
    static const uint32_t start[8] = {
        0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
        0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u,
    };
    memcpy(st->h, start, sizeof start);
    st->total = 0;
}

void fl_sha256_update(fl_sha256_t *st, const void *p, size_t n) {
    const uint8_t *b = p;
    size_t held = (size_t)(st->total % 64);
    st->total += n;
    if (held > 0) {
        size_t take = n < 64 - held ? n : 64 - held;
        if (take > 0) {
            memcpy(st->block + held, b, take);
            b += take;
            n -= take;
        }
        if (held + take < 64) {
            return;
        }
        compress(st->h, st->block);
    }
    for (; n >= 64; b += 64, n -= 64) {
        compress(st->h, b);
    }
    if (n > 0) {
        memcpy(st->block, b, n);
    }
}

void fl_sha256_final(fl_sha256_t *st, uint8_t digest[FL_SHA256_BYTES]) {
    uint64_t bits = st->total * 8;
    size_t held = (size_t)(st->total % 64);
    st->block[held++] = 0x80;
    if (held > 56) {
        memset(st->block + held, 0, 64 - held);
        compress(st->h, st->block);
        held = 0;
    }
    memset(st->block + held, 0, 56 - held);
    for (size_t i = 0; i < 8; i++) {
        st->block[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    compress(st->h, st->block);
    for (size_t i = 0; i < FL_SHA256_BYTES; i++) {
        digest[i] = (uint8_t)(st->h[i / 4] >> (24 - 8 * (i % 4)));
    }
}
