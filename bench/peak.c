/* The arithmetic limit of one core: independent multiply-adds in registers, as wide as the CPU has them.
 * Compiled for the machine at hand by bench/limits.py; never shipped. */
#include <stddef.h>

#if defined(__AVX512F__)
enum { BYTES = 64 };
#elif defined(__AVX__)
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif
#if defined(__x86_64__)
#define KEEP(x) "+v"(x)
#else
#define KEEP(x) "+w"(x)
#endif
typedef float vector __attribute__((vector_size(BYTES)));
enum { CHAINS = 12, LANES = BYTES / sizeof(float) }; /* 12 hide a latency of 4 to 6 cycles on two units */

/* Returns the number of operations done; `sink` gets a value that depends on all of them. */
double trpo_bench_multiply_adds(size_t rounds, float *sink) {
    vector sum[CHAINS] = {{0}};
    const vector a = (vector){0} + 0.999f, b = (vector){0} + 1e-3f;
    for (size_t k = 0; k < rounds; k++) {
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) {
            sum[i] = sum[i] * a + b;
            __asm__ volatile("" : KEEP(sum[i])); /* no chain may be folded into another */
        }
    }
    *sink = 0;
    for (int i = 0; i < CHAINS; i++) *sink += sum[i][0];
    return 2.0 * CHAINS * LANES * (double)rounds;
}
