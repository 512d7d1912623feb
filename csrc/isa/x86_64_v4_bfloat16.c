/* AVX512_BF16, beside the tables of x86-64-v4. */
#define TRPO_BFLOAT16_NAME "AVX512_BF16"
#define TRPO_BFLOAT16_KERNELS trpo_bfloat16_x86_64_v4_bfloat16
#define TRPO_VECTOR_BYTES 64
#define TRPO_MR 6
#define TRPO_NV 4
#include <immintrin.h>

#include "../kernels/bfloat16_begin.h"

INLINE vreal F(multiply_add)(vreal sum, vuint x, vuint b) {
    return (vreal)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)b);
}
INLINE void F(store_narrow)(trpo_bfloat16_pair *to, vreal v) {
    _mm256_storeu_si256((__m256i *)(void *)to, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
INLINE vuint F(narrow_pairs)(vreal lower, vreal upper) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)lower));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)upper));
    return (vuint)low | (vuint)high << 16;
}

#include "../kernels/bfloat16.h"
