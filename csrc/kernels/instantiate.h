/* Both tables of one instruction set. The including file defines
 *   TRPO_ISA_NAME (its name), TRPO_ISA_TABLES (name of the exported pair), TRPO_VECTOR_BYTES,
 *   TRPO_MR x TRPO_NV (rows and vectors of the register block: MR * NV sums, NV + 1 operands must fit the registers). */
#include <float.h>
#include <math.h>
#include <string.h>

#include "bfloat16_table.h"
#include "trpo/kernels.h"
#include "trpo/threads.h"

/* Double precision first: rows of distributions are computed in its vectors in both tables. */
#define REAL double
#define INT int64_t
#define UINT uint64_t
#define SUFFIX f64
#define TRPO_REAL_IS_DOUBLE 1
#include "table.h"

#define REAL float
#define INT int32_t
#define UINT uint32_t
#define SUFFIX f32
#define TRPO_REAL_IS_DOUBLE 0
#include "table.h"

/* declared in dispatch.c, the one user */
extern const trpo_kernels *const TRPO_ISA_TABLES[2];
const trpo_kernels *const TRPO_ISA_TABLES[2] = {&tablef32, &tablef64};
