#include "trpo/kernels.h"

#include <string.h>

#include "isa/sets.h"

#define NOTHING(...)
#define DECLARE_TABLES(suffix, ...) extern const trpo_kernels *const trpo_tables_##suffix[2];
TRPO_INSTRUCTION_SETS(DECLARE_TABLES, NOTHING)

#if defined(__x86_64__)
#define AND_HAS(feature) &&__builtin_cpu_supports(feature)
#define DEFINE_CPU_RUNS(suffix, name, features, tuning)                                                                \
    static int cpu_runs_##suffix(void) {                                                                               \
        __builtin_cpu_init();                                                                                          \
        return 1 features(AND_HAS);                                                                                    \
    }
#else
#define DEFINE_CPU_RUNS(suffix, ...)                                                                                   \
    static int cpu_runs_##suffix(void) { return 1; }
#endif
TRPO_INSTRUCTION_SETS(DEFINE_CPU_RUNS, NOTHING)

#define BUILT_IN_SET(suffix, name, ...) {name, trpo_tables_##suffix, cpu_runs_##suffix},
static const struct {
    const char *name;
    const trpo_kernels *const *tables;
    int (*cpu_runs)(void);
} built_in[] = {TRPO_INSTRUCTION_SETS(BUILT_IN_SET, NOTHING)};

#define NAME_OF(name) name,
static const char *const left_out[] = {TRPO_INSTRUCTION_SETS(NOTHING, NAME_OF) TRPO_BFLOAT16_SETS(NOTHING, NAME_OF)
                                           NULL};

enum { BUILT_IN = sizeof built_in / sizeof built_in[0] };

static int chosen;

int trpo_dispatch(const char *wanted) {
    for (int i = BUILT_IN - 1; i >= 0; i--) {
        if (wanted && strcmp(wanted, built_in[i].name) != 0) continue;
        if (built_in[i].cpu_runs()) {
            chosen = i;
            return 0;
        }
        if (wanted) return -2;
    }
    return wanted ? -1 : -2;
}

const char *trpo_available_isa(int i) {
    for (int j = 0; j < BUILT_IN; j++)
        if (built_in[j].cpu_runs() && i-- == 0) return built_in[j].name;
    return NULL;
}

const char *trpo_left_out_isa(int i) {
    for (int j = 0; left_out[j]; j++)
        if (j == i) return left_out[j];
    return NULL;
}

const trpo_kernels *trpo_kernels_for(trpo_dtype dtype) { return built_in[chosen].tables[dtype]; }

const trpo_kernels *trpo_narrow_kernels_for(trpo_dtype dtype) {
    int narrow = 0;
    for (int i = 1; i < BUILT_IN && i <= chosen; i++) {
        const trpo_kernels *kernels = built_in[i].tables[dtype];
        if (kernels->vector_items * kernels->item_size <= 32) narrow = i;
    }
    return built_in[narrow].tables[dtype];
}
