/* A build whose compiler has no flags for an instruction set: dispatch.c once more, without one. */
#undef TRPO_WITHOUT_x86_64_v4
#define TRPO_WITHOUT_x86_64_v4
#undef TRPO_WITHOUT_x86_64_v4_bfloat16
#define TRPO_WITHOUT_x86_64_v4_bfloat16
#undef TRPO_WITHOUT_aarch64_bfloat16
#define TRPO_WITHOUT_aarch64_bfloat16
#define trpo_dispatch dispatch_on
#define trpo_available_isa isa_on
#define trpo_left_out_isa left_out_on
#define trpo_kernels_for kernels_on
#define trpo_narrow_kernels_for narrow_kernels_on
#include "check.h"

#include "../dispatch.c"
#undef NOTHING
#undef DEFINE_CPU_RUNS
#undef AND_HAS
#define built_in built_in_bfloat16
#define trpo_bfloat16_kernels_for bfloat16_on
#define trpo_bfloat16_name bfloat16_name_on
#define trpo_bfloat16_multiply_adds bfloat16_multiply_adds_on
#define trpo_bfloat16_portable portable_on
#include "../bfloat16.c"

int main(void) {
#if defined(__x86_64__)
    CHECK(dispatch_on("x86-64-v4") == -1, "a set that is not built in is found");
    CHECK(left_out_on(0) && strcmp(left_out_on(0), "x86-64-v4") == 0, "what is left out is not named");
    CHECK(left_out_on(1) && strcmp(left_out_on(1), "AVX512_BF16") == 0, "its bf16 products are not named");
    CHECK(left_out_on(2) == NULL, "%s is named as well", left_out_on(2) ? left_out_on(2) : "none");
    for (int i = 0; isa_on(i); i++) CHECK(strcmp(isa_on(i), "x86-64-v4") != 0, "it is available");
#else
    CHECK(left_out_on(0) && strcmp(left_out_on(0), "BF16") == 0, "what is left out is not named");
#endif
    CHECK(bfloat16_on(NULL) == NULL && bfloat16_on("portable"), "there are bf16 products of an instruction");
    CHECK(dispatch_on(NULL) == 0 && kernels_on(TRPO_FLOAT32) && narrow_kernels_on(TRPO_FLOAT32), "no kernels are left");
    return 0;
}
