/* Which table is chosen on CPUs that this one is not: dispatch.c once more, with a processor that is made up. */
#include "check.h"

static const char *features; /* that the processor has, each followed by a space */

static int has(const char *feature) {
    char word[32];
    snprintf(word, sizeof word, "%s ", feature);
    const char *found = strstr(features, word);
    while (found && found != features && found[-1] != ' ') found = strstr(found + 1, word); /* the end of "ssse3" */
    return found != NULL;
}

#define __builtin_cpu_init() ((void)0)
#define __builtin_cpu_supports(feature) has(feature)
#define trpo_dispatch dispatch_on
#define trpo_available_isa isa_on
#define trpo_kernels_for kernels_on
#define trpo_narrow_kernels_for narrow_kernels_on
#define trpo_left_out_isa left_out_on
#include "../dispatch.c"

#if defined(__x86_64__)
#define V2 "sse3 ssse3 sse4.1 sse4.2 popcnt "
#define V3 V2 "avx avx2 fma bmi bmi2 "
#define V4 V3 "avx512f avx512bw avx512cd avx512dq avx512vl "

static void expect(const char *cpu, const char *wanted, int outcome, const char *isa) {
    features = cpu;
    const int found = dispatch_on(wanted);
    CHECK(found == outcome, "%d instead of %d for %s on a CPU with %s", found, outcome, wanted ? wanted : "any", cpu);
    if (outcome != 0) return;
    for (int dtype = 0; dtype < 2; dtype++)
        CHECK(strcmp(kernels_on((trpo_dtype)dtype)->isa, isa) == 0, "not %s on a CPU with %s", isa, cpu);
}

static void test_the_best_set_that_the_cpu_runs_is_chosen(void) {
    expect(V2, NULL, 0, "x86-64-v2");
    expect(V3, NULL, 0, "x86-64-v3");
    expect(V4, NULL, 0, "x86-64-v4");
    expect(V2 "avx avx2 bmi bmi2 ", NULL, 0, "x86-64-v2"); /* no fma */
    expect(V3 "avx512f avx512cd ", NULL, 0, "x86-64-v3");  /* as the first Xeon Phi */
}

#define ONE_MORE(feature) , feature
#define EACH_FEATURE(suffix, name, features, tuning) {name, {"" features(ONE_MORE)}},
static const struct {
    const char *name, *features[20]; /* the first is none */
} all_sets[] = {TRPO_INSTRUCTION_SETS(EACH_FEATURE, NOTHING)};

static void test_a_cpu_without_any_one_feature_that_a_set_is_compiled_with_does_not_run_it(void) {
    for (size_t i = 0; i < sizeof all_sets / sizeof all_sets[0]; i++)
        for (int without = 1; all_sets[i].features[without]; without++) {
            char cpu[256] = "";
            for (int j = 1; all_sets[i].features[j]; j++)
                if (j != without) strcat(strcat(cpu, all_sets[i].features[j]), " ");
            expect(cpu, all_sets[i].name, -2, NULL);
        }
}

static void test_narrow_kernels_have_256_bits_at_most_and_are_of_the_set_in_use_where_it_has(void) {
    static const char *const cpus[] = {V2, V3, V4};
    static const char *const narrow[] = {"x86-64-v2", "x86-64-v3", "x86-64-v3"};
    for (int cpu = 0; cpu < 3; cpu++) {
        features = cpus[cpu];
        CHECK(dispatch_on(NULL) == 0, "no kernels");
        for (int dtype = 0; dtype < 2; dtype++) {
            const trpo_kernels *k = narrow_kernels_on((trpo_dtype)dtype);
            CHECK(strcmp(k->isa, narrow[cpu]) == 0, "%s on a CPU with %s", k->isa, features);
            CHECK(k->item_size == kernels_on((trpo_dtype)dtype)->item_size, "another dtype");
        }
    }
}

static void test_a_cpu_below_all_sets_gets_none(void) {
    expect("", NULL, -2, NULL);
    expect("sse4.2 ", NULL, -2, NULL);
    expect("popcnt avx2 fma bmi bmi2 ", NULL, -2, NULL);
    features = "sse4.2 ";
    CHECK(isa_on(0) == NULL, "a CPU without popcnt is said to run %s", isa_on(0));
}

static void test_a_set_asked_for_is_that_one_or_none(void) {
    expect(V4, "x86-64-v2", 0, "x86-64-v2");
    expect(V3, "x86-64-v4", -2, NULL);
    expect(V4, "x86-64-v9", -1, NULL);
    expect("", "x86-64-v2", -2, NULL);
}

static void test_available_sets_are_listed_lowest_first(void) {
    features = V3;
    CHECK(strcmp(isa_on(0), "x86-64-v2") == 0 && strcmp(isa_on(1), "x86-64-v3") == 0, "%s, %s", isa_on(0), isa_on(1));
    CHECK(isa_on(2) == NULL, "%s on a CPU without AVX-512", isa_on(2));
}
#else
static void test_the_only_set_is_chosen_by_any_and_by_its_name_alone(void) {
    features = "";
    (void)has;
    CHECK(dispatch_on(NULL) == 0 && dispatch_on("aarch64") == 0, "not available");
    CHECK(dispatch_on("x86-64-v2") == -1, "a set of another architecture is available");
    CHECK(strcmp(isa_on(0), "aarch64") == 0 && isa_on(1) == NULL, "%s", isa_on(0));
    CHECK(kernels_on(TRPO_FLOAT32) != NULL, "no table");
    CHECK(narrow_kernels_on(TRPO_FLOAT32) == kernels_on(TRPO_FLOAT32), "there is a narrower table");
}
#endif

static void test_a_build_of_all_sets_leaves_none_out(void) { CHECK(left_out_on(0) == NULL, "%s", left_out_on(0)); }

int main(void) {
    test_a_build_of_all_sets_leaves_none_out();
#if defined(__x86_64__)
    test_the_best_set_that_the_cpu_runs_is_chosen();
    test_a_cpu_without_any_one_feature_that_a_set_is_compiled_with_does_not_run_it();
    test_narrow_kernels_have_256_bits_at_most_and_are_of_the_set_in_use_where_it_has();
    test_a_cpu_below_all_sets_gets_none();
    test_a_set_asked_for_is_that_one_or_none();
    test_available_sets_are_listed_lowest_first();
#else
    test_the_only_set_is_chosen_by_any_and_by_its_name_alone();
#endif
    return 0;
}
