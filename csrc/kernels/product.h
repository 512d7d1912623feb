/* What a product of gemm.h is told. OPERAND is what x and b are made of: REAL, or pairs of bf16 (bfloat16.h), whose k and
 * strides count pairs. */

/* Two stretches of memory that the caller reads next, e.g. the next tile's, brought into the L2 cache a few lines per
 * register block. All at once they would queue up, and hardware prefetchers do not follow the way tiles are read: at a
 * batch beyond the L3 cache this is worth a fifth of the time. */
typedef struct {
    const char *next[2], *end[2];
} F(ahead_);

INLINE void F(fetch_ahead)(F(ahead_) * ahead) {
    enum { LINES = 12, LINE = 64 };
    for (int i = 0, lines = LINES; i < 2; i++)
        for (; lines > 0 && ahead->next[i] < ahead->end[i]; lines--, ahead->next[i] += LINE)
            __builtin_prefetch(ahead->next[i], 0, 2);
}

typedef enum { F(STORE_), F(ADD_), F(TIMES_DERIVATIVE_) } F(epilogue_kind_);

typedef struct {
    /* x[r, k] = x[r * row_stride + k * k_stride]; the second pair (x2, b2) continues the sum, with the same strides */
    size_t row_stride, k_stride;
    size_t k1, k2;
    const OPERAND *x1, *x2;
    /* b[k][c]: packed in column panels (ldb = 0, see packing.h) or row-major with leading dimension ldb */
    const OPERAND *b1, *b2;
    size_t ldb;
    const REAL *bias; /* columns items, or NULL for zero */
    REAL *y;          /* row-major, leading dimension ldy */
    size_t ldy;
    F(epilogue_kind_) epilogue;
    /* TIMES_DERIVATIVE: y = sum * act'(.), from what lies at derivative_column, a, leading dimension ldy */
    trpo_activation activation;
    const REAL *a;
    F(ahead_) * ahead; /* or NULL; advanced */
} F(product_);
