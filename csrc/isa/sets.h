/* The instruction sets of the machine that is compiled for, lowest first. What compilers may use and what dispatch.c asks
 * the CPU for is this one list:
 *   SET(suffix, name, features, tuning): csrc/isa/<suffix>.c makes its tables; features(FEATURE) is FEATURE("x") for each
 *   feature x; tuning is further options of the compiler.
 *   LEFT_OUT(name) instead, where -DTRPO_WITHOUT_<suffix> says that this compiler does not know the features.
 * A feature is written as gcc has it both in -mx and in __builtin_cpu_supports("x"). gcc 8 documents all of these options
 * but those of bf16, which gcc 10 has, and its libgcc tells of each; it has no -march=x86-64-v3 and its like, which are of gcc 11 and allow more than can be
 * asked for. */
#ifndef TRPO_ISA_SETS_H
#define TRPO_ISA_SETS_H

#if defined(__x86_64__)
#define TRPO_V2_FEATURES(FEATURE) FEATURE("sse3") FEATURE("ssse3") FEATURE("sse4.1") FEATURE("sse4.2") FEATURE("popcnt")
#define TRPO_V3_FEATURES(FEATURE)                                                                                      \
    TRPO_V2_FEATURES(FEATURE) FEATURE("avx") FEATURE("avx2") FEATURE("fma") FEATURE("bmi") FEATURE("bmi2")
#define TRPO_V4_FEATURES(FEATURE)                                                                                      \
    TRPO_V3_FEATURES(FEATURE)                                                                                          \
    FEATURE("avx512f") FEATURE("avx512bw") FEATURE("avx512cd") FEATURE("avx512dq") FEATURE("avx512vl")

/* What adds products of bf16 numbers to a set: SET(suffix, name, features, tuning, set), suffix, features and tuning as above,
 * name as the CPU's maker has it, set the name of the one whose vectors these have. LEFT_OUT(name) as above. */
#define TRPO_V4_BFLOAT16_FEATURES(FEATURE) TRPO_V4_FEATURES(FEATURE) FEATURE("avx512bf16")
#ifdef TRPO_WITHOUT_x86_64_v4_bfloat16
#define TRPO_BFLOAT16_SETS(SET, LEFT_OUT) LEFT_OUT("AVX512_BF16")
#else
#define TRPO_BFLOAT16_SETS(SET, LEFT_OUT)                                                                              \
    SET(x86_64_v4_bfloat16, "AVX512_BF16", TRPO_V4_BFLOAT16_FEATURES, "-mprefer-vector-width=512", "x86-64-v4")
#endif

#ifdef TRPO_WITHOUT_x86_64_v2
#define TRPO_SET_V2(SET, LEFT_OUT) LEFT_OUT("x86-64-v2")
#else
#define TRPO_SET_V2(SET, LEFT_OUT) SET(x86_64_v2, "x86-64-v2", TRPO_V2_FEATURES, "")
#endif
#ifdef TRPO_WITHOUT_x86_64_v3
#define TRPO_SET_V3(SET, LEFT_OUT) LEFT_OUT("x86-64-v3")
#else
#define TRPO_SET_V3(SET, LEFT_OUT) SET(x86_64_v3, "x86-64-v3", TRPO_V3_FEATURES, "")
#endif
#ifdef TRPO_WITHOUT_x86_64_v4
#define TRPO_SET_V4(SET, LEFT_OUT) LEFT_OUT("x86-64-v4")
#else
#define TRPO_SET_V4(SET, LEFT_OUT) SET(x86_64_v4, "x86-64-v4", TRPO_V4_FEATURES, "-mprefer-vector-width=512")
#endif
#define TRPO_INSTRUCTION_SETS(SET, LEFT_OUT)                                                                           \
    TRPO_SET_V2(SET, LEFT_OUT) TRPO_SET_V3(SET, LEFT_OUT) TRPO_SET_V4(SET, LEFT_OUT)

#elif defined(__aarch64__)
#define TRPO_NO_FEATURES(FEATURE)
#define TRPO_INSTRUCTION_SETS(SET, LEFT_OUT) SET(aarch64, "aarch64", TRPO_NO_FEATURES, "")
#ifdef TRPO_WITHOUT_aarch64_bfloat16
#define TRPO_BFLOAT16_SETS(SET, LEFT_OUT) LEFT_OUT("BF16")
#else
#define TRPO_BFLOAT16_SETS(SET, LEFT_OUT)                                                                              \
    SET(aarch64_bfloat16, "BF16", TRPO_NO_FEATURES, "-march=armv8.2-a+bf16", "aarch64")
#endif

#else
#error "trpo_fast has kernels for x86-64 and aarch64"
#endif

#endif
