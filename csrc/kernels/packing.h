/* Matrices into the column panels that products read (gemm.h). */

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
