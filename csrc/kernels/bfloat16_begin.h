/* What a file of bf16 kernels begins with: float vectors of TRPO_VECTOR_BYTES, and rounding in plain C. */
#include <math.h>
#include <string.h>

#include "bfloat16_table.h"

#define REAL float
#define INT int32_t
#define UINT uint32_t
#define SUFFIX bf16
#define TRPO_REAL_IS_DOUBLE 0
#include "simd.h"

/* The nearest, ties to even; a NaN stays one. */
INLINE trpo_bfloat16 bfloat16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, nan = bits >> 16 | 0x40;
    return (trpo_bfloat16)((bits & 0x7fffffff) > 0x7f800000 ? nan : nearest);
}
