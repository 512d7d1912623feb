/* SSE4.2: 16 registers of 4 floats, no fused multiply-add. */
#define TRPO_ISA_NAME "x86-64-v2"
#define TRPO_ISA_TABLES trpo_tables_x86_64_v2
#define TRPO_VECTOR_BYTES 16
#define TRPO_MR 4
#define TRPO_NV 2
#include "../kernels/instantiate.h"
