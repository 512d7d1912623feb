/* AVX-512: 32 registers of 16 floats; 24 sums, 4 operands, 1 broadcast. */
#define TRPO_ISA_NAME "x86-64-v4"
#define TRPO_ISA_TABLES trpo_tables_x86_64_v4
#define TRPO_VECTOR_BYTES 64
#define TRPO_MR 6
#define TRPO_NV 4
#include "../kernels/instantiate.h"
