#include "trpo/kernels.h"

#include <string.h>

#if defined(__x86_64__)
extern const trpo_kernels *const trpo_tables_x86_64_v2[2], *const trpo_tables_x86_64_v3[2],
                                                               *const trpo_tables_x86_64_v4[2];
static const struct {
    const char *name;
    const trpo_kernels *const *tables;
} built_in[] = {
    {"x86-64-v2", trpo_tables_x86_64_v2}, {"x86-64-v3", trpo_tables_x86_64_v3}, {"x86-64-v4", trpo_tables_x86_64_v4}};

static int cpu_runs(int i) {
    __builtin_cpu_init();
    const int v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    const int v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const int v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl");
    return i == 0 ? v2 : (i == 1 ? v3 : v4);
}
#elif defined(__aarch64__)
extern const trpo_kernels *const trpo_tables_aarch64[2];
static const struct {
    const char *name;
    const trpo_kernels *const *tables;
} built_in[] = {{"aarch64", trpo_tables_aarch64}};

static int cpu_runs(int i) { return i == 0; }
#else
#error "trpo_fast has kernels for x86-64 and aarch64"
#endif

enum { BUILT_IN = sizeof built_in / sizeof built_in[0] };

static int chosen;

int trpo_dispatch(const char *wanted) {
    for (int i = BUILT_IN - 1; i >= 0; i--) {
        if (wanted && strcmp(wanted, built_in[i].name) != 0) continue;
        if (cpu_runs(i)) {
            chosen = i;
            return 0;
        }
        if (wanted) return -2;
    }
    return wanted ? -1 : -2;
}

const char *trpo_available_isa(int i) {
    for (int j = 0; j < BUILT_IN; j++)
        if (cpu_runs(j) && i-- == 0) return built_in[j].name;
    return NULL;
}

const trpo_kernels *trpo_kernels_for(trpo_dtype dtype) { return built_in[chosen].tables[dtype]; }

const trpo_kernels *trpo_narrow_kernels_for(trpo_dtype dtype) {
    int i = chosen;
    while (i > 0 && built_in[i].tables[dtype]->vector_items * built_in[i].tables[dtype]->item_size > 32) i--;
    return built_in[i].tables[dtype];
}
