/* AVX2 and FMA: 16 registers of 8 floats; 12 sums, 2 operands, 1 broadcast. */
#define TRPO_ISA_NAME "x86-64-v3"
#define TRPO_ISA_TABLES trpo_tables_x86_64_v3
#define TRPO_VECTOR_BYTES 32
#define TRPO_MR 6
#define TRPO_NV 2
#include "../kernels/instantiate.h"
