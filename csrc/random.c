#include "trpo/random.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

/* Vectors that every CPU has, and no contraction of multiplies and adds (this file's compiler flag): noise has the same bits
 * everywhere. */
#define REAL double
#define INT int64_t
#define UINT uint64_t
#define SUFFIX f64
#define TRPO_REAL_IS_DOUBLE 1
#define TRPO_VECTOR_BYTES 16
#include "kernels/simd.h"

#include "kernels/elementary.h"

void trpo_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t left = (uint64_t)0xD2511F53u * c0, right = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(right >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)right;
        c2 = (uint32_t)(left >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)left;
        k0 += 0x9E3779B9u; /* the golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void trpo_random_bits(const trpo_random_key *key, uint32_t row, uint32_t block, uint64_t out[2]) {
    const uint32_t counter[4] = {block, row, (uint32_t)key->step, (uint32_t)(key->step >> 32) ^ key->stream << 24};
    const uint32_t words[2] = {(uint32_t)key->seed, (uint32_t)(key->seed >> 32)};
    uint32_t bits[4];
    trpo_philox(counter, words, bits);
    out[0] = (uint64_t)bits[1] << 32 | bits[0];
    out[1] = (uint64_t)bits[3] << 32 | bits[2];
}

/* 53 random bits on (0, 1]: never zero, so its logarithm is finite. */
static double unit(uint64_t bits) { return (double)((bits >> 11) + 1) * 0x1p-53; }

void trpo_random_uniform(const trpo_random_key *key, uint32_t row, int count, double *out) {
    for (int i = 0; i < count; i += 2) {
        uint64_t bits[2];
        trpo_random_bits(key, row, (uint32_t)i / 2, bits);
        out[i] = unit(bits[0]);
        if (i + 1 < count) out[i + 1] = unit(bits[1]);
    }
}

void trpo_random_normal(const trpo_random_key *key, uint32_t row, int count, double *out) {
    for (int i = 0; i < count; i += 2 * DLEN) {
        vdouble first, second, sine, cosine;
        for (int j = 0; j < DLEN; j++) {
            uint64_t bits[2];
            trpo_random_bits(key, row, (uint32_t)(i / 2 + j), bits);
            first[j] = unit(bits[0]);
            second[j] = unit(bits[1]);
        }
        const vdouble squared = D(splat)(-2) * D(vlog)(first);
        D(sine_cosine_of_turns)(second, &sine, &cosine);
        for (int j = 0; j < DLEN && i + 2 * j < count; j++) {
            const double radius = sqrt(squared[j]);
            out[i + 2 * j] = radius * cosine[j];
            if (i + 2 * j + 1 < count) out[i + 2 * j + 1] = radius * sine[j];
        }
    }
}

void trpo_random_permutation(const trpo_random_key *key, int64_t n, int64_t *order) {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    uint64_t bits[2];
    for (int64_t i = n - 1; i > 0; i--) {
        const uint32_t draw = (uint32_t)(n - 1 - i);
        if (draw % 2 == 0) trpo_random_bits(key, 0, draw / 2, bits);
        /* the high half of a 32 x 64 bit product: bias below n / 2^64 */
        const uint64_t low = (bits[draw % 2] & 0xFFFFFFFFu) * (uint64_t)(i + 1);
        const int64_t j = (int64_t)(((bits[draw % 2] >> 32) * (uint64_t)(i + 1) + (low >> 32)) >> 32);
        const int64_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}
