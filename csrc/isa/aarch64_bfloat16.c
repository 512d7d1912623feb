/* BF16 of Armv8.6 (optional from Armv8.2 on), beside the tables of aarch64. */
#define TRPO_BFLOAT16_NAME "BF16"
#define TRPO_BFLOAT16_KERNELS trpo_bfloat16_aarch64_bfloat16
#define TRPO_VECTOR_BYTES 16
#define TRPO_MR 6
#define TRPO_NV 4
#include <arm_neon.h>

#include "../kernels/bfloat16_begin.h"

INLINE vreal F(multiply_add)(vreal sum, vuint x, vuint b) {
    return (vreal)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)x, (bfloat16x8_t)b);
}
INLINE void F(store_narrow)(trpo_bfloat16_pair *to, vreal v) {
    vst1_u32((uint32_t *)(void *)to, vreinterpret_u32_bf16(vcvt_bf16_f32((float32x4_t)v)));
}
INLINE vuint F(narrow_pairs)(vreal lower, vreal upper) {
    const uint16x4_t low = vreinterpret_u16_bf16(vcvt_bf16_f32((float32x4_t)lower));
    const uint16x4_t high = vreinterpret_u16_bf16(vcvt_bf16_f32((float32x4_t)upper));
    return (vuint)vcombine_u16(vzip1_u16(low, high), vzip2_u16(low, high));
}

#include "../kernels/bfloat16.h"
