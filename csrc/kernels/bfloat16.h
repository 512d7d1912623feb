/* Kernels of bfloat16_table.h, written once. The including file defines
 *   TRPO_BFLOAT16_NAME, TRPO_BFLOAT16_KERNELS (name of the table), TRPO_VECTOR_BYTES, TRPO_MR x TRPO_NV as instantiate.h,
 * and, after simd.h with REAL float and SUFFIX bf16, what an instruction set has of its own:
 *   F(multiply_add)(sum, x, b): sum of each lane + x.lower b.lower + x.upper b.upper
 *   F(store_narrow)(to, v): VLEN floats as bf16
 *   F(narrow_pairs)(lower, upper): lanes of two vectors as pairs */
#include "trpo/threads.h"

typedef vuint F(voperand_);
typedef trpo_bfloat16_pair F(pairs_unaligned_)
    __attribute__((vector_size(TRPO_VECTOR_BYTES), aligned(sizeof(trpo_bfloat16_pair)), may_alias));

INLINE vuint F(load_operands)(const trpo_bfloat16_pair *p) { return (vuint) * (const F(pairs_unaligned_) *)p; }
INLINE vuint F(splat_operand)(trpo_bfloat16_pair x) { return x - (vuint){0}; }

#define OPERAND trpo_bfloat16_pair
#include "gemm.h"
#undef OPERAND

INLINE trpo_bfloat16_pair F(pair_of)(float lower, float upper) {
    return (trpo_bfloat16_pair)bfloat16_of(lower) | (trpo_bfloat16_pair)bfloat16_of(upper) << 16;
}

static void F(pack_panels)(size_t count, size_t n, size_t columns, const float *m, size_t k_stride, size_t c_stride,
                           trpo_bfloat16_pair *packed) {
    const size_t pairs = (count + 1) / 2;
    for (size_t column = 0; column < columns;) {
        const size_t width = F(panel_vectors)((columns - column) / VLEN) * VLEN;
        const size_t left = n > column ? n - column : 0, filled = left < width ? left : width;
        const float *from = m + column * c_stride;
        for (size_t k = 0; k < pairs; k++) {
            trpo_bfloat16_pair *row = packed + column * pairs + k * width;
            const float *lower = from + 2 * k * k_stride, *upper = 2 * k + 1 < count ? lower + k_stride : NULL;
            for (size_t c = 0; c < filled; c++)
                row[c] = F(pair_of)(lower[c * c_stride], upper ? upper[c * c_stride] : 0);
            for (size_t c = filled; c < width; c++) row[c] = 0;
        }
        column += width;
    }
}

INLINE void F(narrow_along)(size_t columns, const float *m, trpo_bfloat16_pair *along) {
    size_t c = 0;
    for (; c + VLEN <= columns; c += VLEN) F(store_narrow)(along + c / 2, F(load)(m + c));
    for (; c < columns; c += 2) along[c / 2] = F(pair_of)(m[c], c + 1 < columns ? m[c + 1] : 0);
}

static void F(narrow)(size_t rows, size_t columns, const float *m, size_t ldm, trpo_bfloat16_pair *along,
                      trpo_bfloat16_pair *down, size_t ldd) {
    for (size_t r = 0; along && r < rows; r++) F(narrow_along)(columns, m + r * ldm, along + r * ((columns + 1) / 2));
    for (size_t r = 0; down && r < rows; r += 2, down += ldd) {
        const float *lower = m + r * ldm, *upper = r + 1 < rows ? lower + ldm : NULL;
        size_t c = 0;
        for (; c + VLEN <= columns; c += VLEN) {
            const vuint pairs = F(narrow_pairs)(F(load)(lower + c), upper ? F(load)(upper + c) : (vreal){0});
            *(F(pairs_unaligned_) *)(down + c) = (F(pairs_unaligned_))pairs;
        }
        for (; c < columns; c++) down[c] = F(pair_of)(lower[c], upper ? upper[c] : 0);
    }
}

/* 0.996 and 0.001 in both halves */
INLINE vreal F(link)(vreal s) { return F(multiply_add)(s, F(splat_operand)(0x3f7f3f7f), F(splat_operand)(0x3a833a83)); }
#define OPERATIONS 4
#include "peak.h"

extern const struct trpo_bfloat16_kernels TRPO_BFLOAT16_KERNELS;
const struct trpo_bfloat16_kernels TRPO_BFLOAT16_KERNELS = {
    .name = TRPO_BFLOAT16_NAME,
    .vector_items = VLEN,
    .multiply = F(multiply),
    .pack_panels = F(pack_panels),
    .narrow = F(narrow),
    .multiply_adds = F(multiply_adds),
};
