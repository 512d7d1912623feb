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
#define KEEP(x) __asm__ volatile("" : "+v"(x)) /* no chain may be folded into another */
#else
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#endif

typedef float vector __attribute__((vector_size(BYTES)));
enum { CHAINS = 12, LANES = BYTES / sizeof(float) }; /* 12 hide a latency of 4 to 6 cycles on two units */

/* Single variables: compilers keep an array of vectors in memory once its elements go through asm. */
#define EACH(DO) DO(s0) DO(s1) DO(s2) DO(s3) DO(s4) DO(s5) DO(s6) DO(s7) DO(s8) DO(s9) DO(s10) DO(s11)
#define DECLARE(s) vector s = {0};
#define MULTIPLY_ADD(s)                                                                                                \
    s = s * a + b;                                                                                                     \
    KEEP(s);
#define ADD_UP(s) *sink += s[0];

/* Returns the number of operations done; `sink` gets a value that depends on all of them. */
double trpo_bench_multiply_adds(size_t rounds, float *sink) {
    const vector a = (vector){0} + 0.999f, b = (vector){0} + 1e-3f;
    EACH(DECLARE)
    for (size_t k = 0; k < rounds; k++) { EACH(MULTIPLY_ADD) }
    *sink = 0;
    EACH(ADD_UP)
    return 2.0 * CHAINS * LANES * (double)rounds;
}
