/* Products of bf16 numbers with float32 sums: what kernels/bfloat16.h gives for one instruction and the float32 tables use.
 *
 * A bf16 number is the upper half of a float. Operands come in pairs of consecutive k, the first in a pair's lower half: an
 * instruction adds both of their products to a float32 sum. They are rounded to the nearest bf16, ties to even; whether
 * numbers below float's smallest normal are kept or zero is the instruction's. */
#ifndef TRPO_BFLOAT16_TABLE_H
#define TRPO_BFLOAT16_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "trpo/types.h"

typedef uint16_t trpo_bfloat16;
typedef uint32_t __attribute__((may_alias)) trpo_bfloat16_pair;

#define REAL float
#define OPERAND trpo_bfloat16_pair
#define INLINE static inline __attribute__((always_inline, unused))
#define F(name) name##bf16
#include "product.h"
#undef REAL
#undef OPERAND
#undef INLINE
#undef F

struct trpo_bfloat16_kernels {
    const char *name;
    size_t vector_items; /* floats of a vector: columns of products are a multiple of it */
    /* gemm.h's multiply: p's operands are pairs; y, bias and a float. */
    void (*multiply)(const product_bf16 *p, size_t rows, size_t columns);
    /* Panels of b[k][c] = m[k * k_stride + c * c_stride], k < count, c < n: (count + 1) / 2 pairs of rows, zeros behind the
     * last one, and `columns` columns, a multiple of vector_items, zeros from n on. OUT. */
    void (*pack_panels)(size_t count, size_t n, size_t columns, const float *m, size_t k_stride, size_t c_stride,
                        trpo_bfloat16_pair *packed);
    /* m, rows x columns with leading dimension ldm, in two layouts, both OUT.
     *   along: NULL, or pairs within a row: rows x (columns + 1) / 2, zeros behind the last column
     *   down: NULL, or pairs of rows: (rows + 1) / 2 x columns with leading dimension ldd, zeros behind the last row */
    void (*narrow)(size_t rows, size_t columns, const float *m, size_t ldm, trpo_bfloat16_pair *along,
                   trpo_bfloat16_pair *down, size_t ldd);
    /* As trpo_kernels' of this name; an instruction counts as four operations a lane. */
    double (*multiply_adds)(size_t rounds, int threads);
};

#endif
