/* Which bf16 products there are; and the portable ones. */
#define TRPO_BFLOAT16_NAME "portable"
#define TRPO_BFLOAT16_KERNELS trpo_bfloat16_portable
#define TRPO_VECTOR_BYTES 16 /* of which all tables' vectors are multiples */
#define TRPO_MR 6
#define TRPO_NV 4
#include "kernels/bfloat16_portable.h"

#include "isa/sets.h"
#include "trpo/kernels.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#define NOTHING(...)
#define DECLARE_KERNELS(suffix, ...) extern const struct trpo_bfloat16_kernels trpo_bfloat16_##suffix;
TRPO_BFLOAT16_SETS(DECLARE_KERNELS, NOTHING)

#if defined(__x86_64__)
#define AND_HAS(feature) &&__builtin_cpu_supports(feature)
#define DEFINE_CPU_RUNS(suffix, name, features, ...)                                                                   \
    static int cpu_runs_##suffix(void) {                                                                               \
        __builtin_cpu_init();                                                                                          \
        return 1 features(AND_HAS);                                                                                    \
    }
#else
#define DEFINE_CPU_RUNS(suffix, ...)                                                                                   \
    static int cpu_runs_##suffix(void) { return cpu_has_bf16(); }
static int __attribute__((unused)) cpu_has_bf16(void) {
#if defined(__linux__)
    enum { HAS_BF16 = 1 << 14 }; /* HWCAP2_BF16, which older headers lack */
    return (getauxval(AT_HWCAP2) & HAS_BF16) != 0;
#elif defined(__APPLE__)
    int found = 0;
    size_t size = sizeof found;
    return sysctlbyname("hw.optional.arm.FEAT_BF16", &found, &size, NULL, 0) == 0 && found;
#else
    return 0;
#endif
}
#endif
TRPO_BFLOAT16_SETS(DEFINE_CPU_RUNS, NOTHING)

#define BUILT_IN(suffix, name, features, tuning, set) {&trpo_bfloat16_##suffix, cpu_runs_##suffix, set},
static const struct {
    const struct trpo_bfloat16_kernels *kernels;
    int (*cpu_runs)(void);
    const char *set;
} built_in[] = {TRPO_BFLOAT16_SETS(BUILT_IN, NOTHING){NULL, NULL, ""}};

const struct trpo_bfloat16_kernels *trpo_bfloat16_kernels_for(const char *wanted) {
    if (wanted) return strcmp(wanted, trpo_bfloat16_portable.name) == 0 ? &trpo_bfloat16_portable : NULL;
    const char *set = trpo_kernels_for(TRPO_FLOAT32)->isa;
    for (int i = 0; built_in[i].kernels; i++)
        if (strcmp(set, built_in[i].set) == 0 && built_in[i].cpu_runs()) return built_in[i].kernels;
    return NULL;
}

const char *trpo_bfloat16_name(const struct trpo_bfloat16_kernels *kernels) { return kernels->name; }

double trpo_bfloat16_multiply_adds(const struct trpo_bfloat16_kernels *kernels, size_t rounds, int threads) {
    return kernels->multiply_adds(rounds, threads);
}
