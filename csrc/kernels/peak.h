/* What the instruction set can do at most: independent multiply-adds in registers. The including file says what one link of
 * a chain is, F(link)(s), and how many OPERATIONS it does in a lane. */

#if defined(KEEP) /* of vectors that no register holds */
#elif defined(__x86_64__)
#define KEEP(x) __asm__ volatile("" : "+v"(x)) /* no chain may be folded into another */
#else
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#endif
/* Enough chains to hide the latency of every unit; single variables, since compilers keep an array of vectors in memory
 * once its elements go through asm. */
#define TWELVE(DO) DO(s0) DO(s1) DO(s2) DO(s3) DO(s4) DO(s5) DO(s6) DO(s7) DO(s8) DO(s9) DO(s10) DO(s11)
#if defined(__AVX512F__) || defined(__aarch64__) /* 32 registers */
#define EACH(DO) TWELVE(DO) DO(t0) DO(t1) DO(t2) DO(t3) DO(t4) DO(t5) DO(t6) DO(t7) DO(t8) DO(t9) DO(t10) DO(t11)
#else
#define EACH(DO) TWELVE(DO)
#endif
#define COUNT(s) +1
#define DECLARE(s) vreal s = {0};
#define MULTIPLY_ADD(s)                                                                                                \
    s = F(link)(s);                                                                                                    \
    KEEP(s);

static void F(multiply_adds_task)(void *context, int i, int thread) {
    (void)i, (void)thread;
    EACH(DECLARE)
    for (size_t k = *(const size_t *)context; k > 0; k--) { EACH(MULTIPLY_ADD) }
}

static double F(multiply_adds)(size_t rounds, int threads) {
    trpo_parallel(threads, threads, F(multiply_adds_task), &rounds);
    return (double)OPERATIONS * (0 EACH(COUNT)) * (double)VLEN * (double)rounds * threads;
}
#undef KEEP
#undef TWELVE
#undef EACH
#undef COUNT
#undef DECLARE
#undef MULTIPLY_ADD
#undef OPERATIONS
