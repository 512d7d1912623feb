/* Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a counter-based generator. Draws are
 * a function of (seed, stream, step, row, block), so they are the same for any number of threads and after a resume. */
#ifndef TRPO_RANDOM_H
#define TRPO_RANDOM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Both are in one word of the counter. */
#define TRPO_MAX_STREAM UINT32_C(0xff)
#define TRPO_MAX_STEP UINT64_C(0xffffffffffffff)

typedef struct {
    uint64_t seed;
    uint32_t stream; /* at most TRPO_MAX_STREAM: what the draws are for */
    uint64_t step;   /* at most TRPO_MAX_STEP */
} trpo_random_key;

/* out: 4 words. counter: 4 words and key: 2 words, not modified. */
void trpo_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Two 64-bit draws for (row, block). */
void trpo_random_bits(const trpo_random_key *key, uint32_t row, uint32_t block, uint64_t out[2]);

/* count doubles, uniform on (0, 1]. */
void trpo_random_uniform(const trpo_random_key *key, uint32_t row, int count, double *out);

/* count doubles, standard normal (Box-Muller, two per block). */
void trpo_random_normal(const trpo_random_key *key, uint32_t row, int count, double *out);

/* A uniformly random order of 0..n-1 (Fisher-Yates). order: n items, overwritten. n < 2^32. */
void trpo_random_permutation(const trpo_random_key *key, int64_t n, int64_t *order);

#ifdef __cplusplus
}
#endif

#endif
