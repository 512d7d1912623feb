/* NEON: 32 registers of 4 floats; 24 sums, 4 operands, 1 broadcast. */
#define TRPO_ISA_NAME "aarch64"
#define TRPO_ISA_TABLES trpo_tables_aarch64
#define TRPO_VECTOR_BYTES 16
#define TRPO_MR 6
#define TRPO_NV 4
#include "../kernels/instantiate.h"
