/* bf16 products in plain C, of any vector length: for tests of all that is the same for every instruction. */
#include "bfloat16_begin.h"

INLINE vreal F(multiply_add)(vreal sum, vuint x, vuint b) {
    const vuint upper = 0xffff0000 - (vuint){0};
    sum += (vreal)(x << 16) * (vreal)(b << 16);
    return sum + (vreal)(x & upper) * (vreal)(b & upper);
}
INLINE void F(store_narrow)(trpo_bfloat16_pair *to, vreal v) {
    for (size_t i = 0; i < VLEN; i += 2)
        to[i / 2] = (trpo_bfloat16_pair)bfloat16_of(v[i]) | (trpo_bfloat16_pair)bfloat16_of(v[i + 1]) << 16;
}
INLINE vuint F(narrow_pairs)(vreal lower, vreal upper) {
    vuint pairs = {0};
    for (size_t i = 0; i < VLEN; i++)
        pairs[i] = (uint32_t)bfloat16_of(lower[i]) | (uint32_t)bfloat16_of(upper[i]) << 16;
    return pairs;
}

#define KEEP(x) __asm__ volatile("" : "+m"(x))
#include "bfloat16.h"
