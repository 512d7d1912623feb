/* Register-blocked products of a tile of rows with a small matrix.
 *
 *   y[r][c] = epilogue(bias[c] + sum_k x[r, k] b[k][c])         r < rows, c < columns (a multiple of VLEN)
 *
 * Vectors run along c; x is broadcast. TRPO_MR rows by TRPO_NV vectors of y stay in registers. Every row passes the same
 * sequence of operations whatever the row block it falls in, so a row's result does not depend on its place in the batch.
 *
 * The including file says what operands are: product.h, and vectors of them as operands.h has them.
 */

/* Derivative of an activation from its own value, or from itself where it is kept. */
INLINE vreal F(derivative)(trpo_activation activation, vreal a) {
    const vreal one = F(splat)(1);
    switch (activation) {
    case TRPO_TANH: return one - a * a;
    case TRPO_RELU: return F(select)(a > 0, one, (vreal){0});
    case TRPO_ELU: return F(select)(a > 0, one, a + one);
    case TRPO_LEAKY_RELU: return F(select)(a > 0, one, F(splat)((REAL)0.01));
    case TRPO_SIGMOID: return a * (one - a);
    case TRPO_SILU:
    case TRPO_GELU:
    case TRPO_SOFTPLUS: return a;
    default: return one;
    }
}

#define UNROLL _Pragma("GCC unroll 16")

enum { F(MOST_SUMS_) = 24 }; /* of a block */

/* y's block of mr rows by nv vectors at (row, column). mr and nv are literals wherever this is inlined: then every loop over
 * them unrolls, and the sums stay in registers. */
INLINE void F(block)(const F(product_) * p, size_t row, size_t column, const int mr, const int nv) {
    if (p->ahead) F(fetch_ahead)(p->ahead);
    vreal sum[F(MOST_SUMS_)];
    UNROLL for (int v = 0; v < nv; v++) {
        vreal start = p->bias ? F(load)(p->bias + column + v * VLEN) : (vreal){0};
        UNROLL for (int r = 0; r < mr; r++) sum[r * nv + v] = start;
    }
    const size_t row_stride = p->row_stride, k_stride = p->k_stride, ldb = p->ldb ? p->ldb : nv * VLEN;
    for (int pair = 0; pair < 2; pair++) {
        const size_t k = pair ? p->k2 : p->k1;
        if (k == 0) continue;
        const OPERAND *x = (pair ? p->x2 : p->x1) + row * row_stride;
        const OPERAND *b = (pair ? p->b2 : p->b1) + (p->ldb ? column : column * k);
        for (size_t i = 0; i < k; i++, x += k_stride, b += ldb) {
            F(voperand_) bv[TRPO_NV];
            UNROLL for (int v = 0; v < nv; v++) bv[v] = F(load_operands)(b + v * VLEN);
            UNROLL for (int r = 0; r < mr; r++) {
                const F(voperand_) xv = F(splat_operand)(x[r * row_stride]);
                UNROLL for (int v = 0; v < nv; v++) sum[r * nv + v] = F(multiply_add)(sum[r * nv + v], xv, bv[v]);
            }
        }
    }
    REAL *y = p->y + row * p->ldy + column;
    if (p->epilogue == F(TIMES_DERIVATIVE_)) {
        const REAL *a = p->a + row * p->ldy + column;
        UNROLL for (int r = 0; r < mr; r++) UNROLL for (int v = 0; v < nv; v++) sum[r * nv + v] *=
            F(derivative)(p->activation, F(load)(a + r * p->ldy + v * VLEN));
    } else if (p->epilogue == F(ADD_)) {
        UNROLL for (int r = 0; r < mr; r++) UNROLL for (int v = 0; v < nv; v++) sum[r * nv + v] +=
            F(load)(y + r * p->ldy + v * VLEN);
    }
    UNROLL for (int r = 0; r < mr; r++) UNROLL for (int v = 0; v < nv; v++)
        F(store)(y + r * p->ldy + v * VLEN, sum[r * nv + v]);
}

/* All rows of a panel of nv vectors, which is a literal, too. */
INLINE void F(panel)(const F(product_) * p, size_t rows, size_t column, const int nv) {
    size_t row = 0;
    if (nv == 1 && TRPO_MR >= 6) /* six sums are too few to hide the latency of multiply-adds */
        for (; row + 12 <= rows; row += 12) F(block)(p, row, column, 12, nv);
    if (TRPO_MR >= 6)
        for (; row + 6 <= rows; row += 6) F(block)(p, row, column, 6, nv);
    for (; row + 4 <= rows; row += 4) F(block)(p, row, column, 4, nv);
    for (; row + 2 <= rows; row += 2) F(block)(p, row, column, 2, nv);
    for (; row < rows; row++) F(block)(p, row, column, 1, nv);
}

/* Vectors in the panel that starts where `vectors` are left. */
INLINE size_t F(panel_vectors)(size_t vectors) { return vectors >= TRPO_NV ? TRPO_NV : (vectors >= 2 ? 2 : 1); }

static void F(multiply)(const F(product_) * p, size_t rows, size_t columns) {
    for (size_t column = 0; column < columns;) {
        const size_t vectors = F(panel_vectors)((columns - column) / VLEN);
        if (TRPO_NV >= 4 && vectors == 4)
            F(panel)(p, rows, column, 4);
        else if (vectors == 2)
            F(panel)(p, rows, column, 2);
        else
            F(panel)(p, rows, column, 1);
        column += vectors * VLEN;
    }
}
#undef UNROLL
