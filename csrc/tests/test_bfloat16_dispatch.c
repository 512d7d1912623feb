/* Which bf16 products are taken on CPUs that this one is not: bfloat16.c once more, with a processor that is made up. */
#include "check.h"

#if defined(__x86_64__)
static int bf16;                   /* whether the processor has avx512bf16 */
static const char *lacking = NULL; /* another feature that it lacks */
static int has(const char *feature) {
    return strcmp(feature, "avx512bf16") == 0 ? bf16 : !lacking || strcmp(feature, lacking) != 0;
}
static const trpo_kernels *in_use;

#define __builtin_cpu_init() ((void)0)
#define __builtin_cpu_supports(feature) has(feature)
#define trpo_kernels_for(dtype) ((void)(dtype), in_use)
#define trpo_bfloat16_kernels_for taken_for
#define trpo_bfloat16_name name_of
#define trpo_bfloat16_multiply_adds multiply_adds_of
#define trpo_bfloat16_portable portable_again
#include "../bfloat16.c"
#undef trpo_kernels_for

int main(void) {
    trpo_kernels v3 = *trpo_kernels_for(TRPO_FLOAT32), v4 = v3;
    v3.isa = "x86-64-v3", v4.isa = "x86-64-v4";
    for (bf16 = 0; bf16 < 2; bf16++) {
        in_use = &v3;
        CHECK(taken_for(NULL) == NULL, "taken beside vectors of another length");
        in_use = &v4;
        CHECK((taken_for(NULL) != NULL) == bf16, "AVX512_BF16 on a CPU with %d", bf16);
        CHECK(taken_for("portable") != NULL && taken_for("AVX512_BF16") == NULL, "by its name");
    }
    bf16 = 1;
    CHECK(strcmp(name_of(taken_for(NULL)), "AVX512_BF16") == 0, "%s", name_of(taken_for(NULL)));
    lacking = "avx512vl"; /* which its file is compiled with, too */
    CHECK(taken_for(NULL) == NULL, "taken without %s", lacking);
    return 0;
}
#else
int main(void) { return 0; }
#endif
