/* Register-blocked products of a tile of rows with a small matrix.
 *
 *   y[r][c] = epilogue(bias[c] + sum_k x[r, k] b[k][c])         r < rows, c < columns (a multiple of VLEN)
 *
 * Vectors run along c; x is broadcast. TRPO_MR rows by TRPO_NV vectors of y stay in registers. Every row passes the same
 * sequence of operations whatever the row block it falls in, so a row's result does not depend on its place in the batch.
 */

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
    const REAL *x1, *x2;
    /* b[k][c]: packed in column panels (ldb = 0, see pack_panels) or row-major with leading dimension ldb */
    const REAL *b1, *b2;
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
        const REAL *x = (pair ? p->x2 : p->x1) + row * row_stride;
        const REAL *b = (pair ? p->b2 : p->b1) + (p->ldb ? column : column * k);
        for (size_t i = 0; i < k; i++, x += k_stride, b += ldb) {
            vreal bv[TRPO_NV];
            UNROLL for (int v = 0; v < nv; v++) bv[v] = F(load)(b + v * VLEN);
            UNROLL for (int r = 0; r < mr; r++) {
                const vreal xv = F(splat)(x[r * row_stride]);
                UNROLL for (int v = 0; v < nv; v++) sum[r * nv + v] += xv * bv[v];
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

/* What four consecutive items are read and written as, whatever the length of vectors. */
typedef REAL F(quad_) __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (F(quad_places_)){i, j, k, l})
typedef INT F(quad_places_) __attribute__((vector_size(4 * sizeof(INT))));
#endif

/* to[i * to_row + j * to_column] = from[i * from_row + j * from_column], a few rows at a time, so that where one side is
 * strided its lines are still in the L1 cache when their next item's turn comes. */
static void F(transpose)(size_t rows, size_t columns, const REAL *from, size_t from_row, size_t from_column, REAL *to,
                         size_t to_row, size_t to_column) {
    enum { ROWS = 16 };
    if (from_row == 1 && to_column == 1 && from_column != 1) {
        F(transpose)(columns, rows, from, from_column, 1, to, 1, to_row);
        return;
    }
    const int by_fours = from_column == 1 && to_row == 1;
    for (size_t start = 0; start < rows; start += ROWS) {
        const size_t end = start + ROWS < rows ? start + ROWS : rows;
        size_t j = 0;
        for (; by_fours && j + 4 <= columns; j += 4) {
            size_t i = start;
            for (; i + 4 <= end; i += 4) {
                const REAL *source = from + i * from_row + j;
                REAL *target = to + i + j * to_column;
                const F(quad_) a = *(const F(quad_) *)source, b = *(const F(quad_) *)(source + from_row);
                const F(quad_) c = *(const F(quad_) *)(source + 2 * from_row);
                const F(quad_) d = *(const F(quad_) *)(source + 3 * from_row);
                const F(quad_) low = PICK(a, b, 0, 4, 1, 5), high = PICK(a, b, 2, 6, 3, 7);
                const F(quad_) more_low = PICK(c, d, 0, 4, 1, 5), more_high = PICK(c, d, 2, 6, 3, 7);
                *(F(quad_) *)target = PICK(low, more_low, 0, 1, 4, 5);
                *(F(quad_) *)(target + to_column) = PICK(low, more_low, 2, 3, 6, 7);
                *(F(quad_) *)(target + 2 * to_column) = PICK(high, more_high, 0, 1, 4, 5);
                *(F(quad_) *)(target + 3 * to_column) = PICK(high, more_high, 2, 3, 6, 7);
            }
            for (; i < end; i++)
                for (size_t k = j; k < j + 4; k++) to[i + k * to_column] = from[i * from_row + k];
        }
        for (; j < columns; j++)
            for (size_t i = start; i < end; i++) to[i * to_row + j * to_column] = from[i * from_row + j * from_column];
    }
}
#undef PICK

/* b[k][c] = m[k * k_stride + c * c_stride] for c < n, zero up to the next multiple of VLEN, stored panel after panel:
 * the panel that starts at column c begins at packed + c * k and is row-major with its own width. */
static void F(pack_panels)(size_t k, size_t n, const REAL *m, size_t k_stride, size_t c_stride, REAL *packed) {
    const size_t columns = F(round_up)(n);
    for (size_t column = 0; column < columns;) {
        const size_t width = F(panel_vectors)((columns - column) / VLEN) * VLEN;
        const size_t filled = n - column < width ? n - column : width;
        REAL *panel = packed + column * k;
        if (filled < width) memset(panel, 0, k * width * sizeof(REAL));
        F(transpose)(filled, k, m + column * c_stride, c_stride, k_stride, panel, 1, width);
        column += width;
    }
}
#undef UNROLL
