/* Fisher products with cached output Jacobians. With B_l the Jacobian of a row's outputs with respect to the activations of
 * hidden layer l and D_l the derivatives of these,
 *
 *   J v = sum_l B_l D_l (V_l a_(l-1) + v_l),    (J' d)_l = (D_l B_l' d) a_(l-1)'
 *
 * so that the products with W_l of the tangent and the cotangent pass become two contractions over the outputs. B_l is made
 * once per theta, B_(l-1) = B_l D_l W_l for each output. Of the last hidden layer it is W itself; of the layers below a tile
 * keeps it, rows x outputs x padded[l], from TRPO_TILE_ROWS * outputs * activation_column[l] on. */

INLINE REAL *F(jacobian_of)(const trpo_mlp *plan, const REAL *jacobians, int l) {
    return (REAL *)jacobians + TRPO_TILE_ROWS * plan->widths[plan->layers] * plan->activation_column[l];
}

/* The first n items of p, zeros behind them. */
INLINE vreal F(load_some)(const REAL *p, size_t n) {
    REAL lane[TRPO_VECTOR_BYTES / sizeof(REAL)] = {0};
    if (n >= VLEN) return F(load)(p);
    memcpy(lane, p, n * sizeof(REAL));
    return F(load)(lane);
}

/* Output Jacobians of a tile whose activations are known. parameters: the network's; scratch: a tile buffer. */
static void F(mlp_jacobians)(const trpo_mlp *plan, const REAL *parameters, const REAL *packed_backward, size_t rows,
                             const REAL *tile, REAL *scratch, REAL *jacobians) {
    enum { PAIRS = 48 }; /* of a row and an output; their operand and a panel of W lie in the L1 cache */
    const int top = plan->layers - 1;
    const size_t outputs = plan->widths[plan->layers];
    for (int l = top; l > 1; l--) {
        const size_t width = plan->widths[l], padded = plan->padded[l], below = plan->padded[l - 1];
        const REAL *a = F(derivative_place)(plan, tile, l), *B = F(jacobian_of)(plan, jacobians, l);
        REAL *y = F(jacobian_of)(plan, jacobians, l - 1);
        for (size_t start = 0, count; start < rows * outputs; start += count) {
            count = rows * outputs - start < PAIRS ? rows * outputs - start : PAIRS;
            for (size_t i = 0; i < count; i++) {
                const size_t row = (start + i) / outputs;
                const REAL *b =
                    l < top ? B + (start + i) * padded : parameters + plan->weight[top] + (start + i) % outputs * width;
                for (size_t c = 0; c < width; c += VLEN)
                    F(store)(scratch + i * padded + c,
                             F(load_some)(b + c, width - c) *
                                 F(derivative)(plan->activation, F(load)(a + row * padded + c)));
            }
            const F(product_) p = {.row_stride = padded,
                                   .k_stride = 1,
                                   .k1 = width,
                                   .x1 = scratch,
                                   .b1 = packed_backward + plan->backward_weight[l - 1],
                                   .y = y + start * below,
                                   .ldy = below};
            F(multiply)(&p, count, below);
        }
    }
}

/* ---- sums over the lanes of several vectors ---- */

#if TRPO_REAL_IS_DOUBLE
#define LANES (TRPO_VECTOR_BYTES / 8)
#else
#define LANES (TRPO_VECTOR_BYTES / 4)
#endif
#if LANES == 16
#define LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif LANES == 8
#define LANE_NUMBERS {0, 1, 2, 3, 4, 5, 6, 7}
#elif LANES == 4
#define LANE_NUMBERS {0, 1, 2, 3}
#else
#define LANE_NUMBERS {0, 1}
#endif
#define UNROLL _Pragma("GCC unroll 16")

enum { F(GROUP_) = LANES < 8 ? LANES : 8 }; /* outputs that are contracted together */

/* Lane i gets lane i ^ s; s is a constant power of two below VLEN. */
INLINE vreal F(swap_lanes)(vreal v, int s) {
#if defined(__clang__)
    vreal swapped = v;
    UNROLL for (int i = 0; i < LANES; i++) swapped[i] = v[i ^ s];
    return swapped;
#else
    return __builtin_shuffle(v, (vint)LANE_NUMBERS ^ s);
#endif
}

/* Lanes without bit s: sums of two lanes of `low`; those with it: of `high`. */
INLINE vreal F(pair_sums)(vreal low, vreal high, int s) {
    const vint upper = ((vint)LANE_NUMBERS & s) != 0;
    return F(select)(upper, high, low) + F(swap_lanes)(F(select)(upper, low, high), s);
}

/* Lane j is the sum of v[j]'s lanes for j < count, 0 beyond. count is a constant, at most GROUP_; v's GROUP_ vectors are
 * spoilt, those from count on are zero. */
INLINE vreal F(lane_sums)(const int count, vreal *v) {
    const int n = count > 4 ? 8 : (count > 2 ? 4 : count);
    if (n == 8) UNROLL for (int i = 0; i < 4; i++) v[i] = F(pair_sums)(v[i], v[i + 4], 4);
    if (n >= 4) UNROLL for (int i = 0; i < 2; i++) v[i] = F(pair_sums)(v[i], v[i + 2], 2);
    vreal sum = n >= 2 ? F(pair_sums)(v[0], v[1], 1) : v[0];
    if (n < 2) sum += F(swap_lanes)(sum, 1);
    if (LANES > 2 && n < 4) sum += F(swap_lanes)(sum, 2 % LANES);
    if (LANES > 4 && n < 8) sum += F(swap_lanes)(sum, 4 % LANES);
    if (LANES > 8) sum += F(swap_lanes)(sum, 8 % LANES);
    return n == LANES ? sum : F(select)((vint)LANE_NUMBERS < n, sum, (vreal){0});
}

/* ---- both contractions of some rows ---- */

typedef struct {
    size_t rows, outputs, columns;
    const REAL *b; /* rows x outputs x columns */
    const REAL *a; /* rows x columns, what the derivatives are computed from */
    trpo_activation activation;
    REAL *y; /* rows x columns */
    REAL *t; /* rows x outputs, leading dimension ldt */
    size_t ldt;
} F(contraction_);

/* Of the `count` outputs that begin at `first`: t[r][o] += sum_c b[r][o][c] y[r][c]. count: a constant. */
INLINE void F(contract_outputs)(const F(contraction_) * p, size_t first, const int count) {
    const REAL *b = p->b + first * p->columns, *y = p->y;
    REAL *t = p->t + first / VLEN * VLEN;
    for (size_t r = 0; r < p->rows; r++, b += p->outputs * p->columns, y += p->columns, t += p->ldt) {
        vreal sum[8] = {{0}};
        for (size_t c = 0; c < p->columns; c += VLEN) {
            const vreal yv = F(load)(y + c);
            UNROLL for (int o = 0; o < count; o++) sum[o] += F(load)(b + (size_t)o * p->columns + c) * yv;
        }
        vreal sums = F(lane_sums)(count, sum);
        if (LANES > 8 && first % VLEN) sums = F(swap_lanes)(sums, 8 % LANES);
        F(store)(t, F(load)(t) + sums);
    }
}

static void F(contract)(const F(contraction_) * p) {
    for (size_t first = 0; first < p->outputs; first += F(GROUP_)) {
        const size_t left = p->outputs - first;
        switch (left < F(GROUP_) ? left : F(GROUP_)) {
        case 1: F(contract_outputs)(p, first, 1); break;
        case 2: F(contract_outputs)(p, first, 2); break;
#if LANES > 2
        case 3: F(contract_outputs)(p, first, 3); break;
        case 4: F(contract_outputs)(p, first, 4); break;
#endif
#if LANES > 4
        case 5: F(contract_outputs)(p, first, 5); break;
        case 6: F(contract_outputs)(p, first, 6); break;
        case 7: F(contract_outputs)(p, first, 7); break;
        default: F(contract_outputs)(p, first, 8); break;
#endif
        }
    }
}

/* y[r][c] = act'(r, c) sum_o b[r][o][c] t[r][o], `vectors` (a constant) vectors of columns from `column`. */
INLINE void F(spread_columns)(const F(contraction_) * p, size_t column, const int vectors) {
    const REAL *b = p->b + column, *a = p->a + column, *t = p->t;
    REAL *y = p->y + column;
    for (size_t r = 0; r < p->rows; r++, b += p->outputs * p->columns, t += p->ldt, a += p->columns, y += p->columns) {
        vreal sum[4] = {{0}};
        for (size_t o = 0; o < p->outputs; o++) {
            const vreal tv = F(splat)(t[o]);
            UNROLL for (int v = 0; v < vectors; v++) sum[v] += tv * F(load)(b + o * p->columns + (size_t)v * VLEN);
        }
        UNROLL for (int v = 0; v < vectors; v++)
            F(store)(y + (size_t)v * VLEN, sum[v] * F(derivative)(p->activation, F(load)(a + (size_t)v * VLEN)));
    }
}

static void F(spread_outputs)(const F(contraction_) * p) {
    size_t column = 0;
    for (; column + 4 * VLEN <= p->columns; column += 4 * VLEN) F(spread_columns)(p, column, 4);
    for (; column < p->columns; column += VLEN) F(spread_columns)(p, column, 1);
}

/* The contraction of layer l for `count` rows of a tile from `row` on. */
INLINE F(contraction_) F(contraction_of)(const trpo_mlp *plan, const REAL *jacobians, const REAL *tile, REAL *tangents,
                                         int l, size_t row, size_t count) {
    const size_t outputs = plan->widths[plan->layers], columns = plan->padded[l], ldt = plan->padded[plan->layers];
    return (F(contraction_)){.rows = count,
                             .outputs = outputs,
                             .columns = columns,
                             .b = F(jacobian_of)(plan, jacobians, l) + row * outputs * columns,
                             .a = F(derivative_place)(plan, tile, l) + row * columns,
                             .activation = plan->activation,
                             .y = tangents + TRPO_TILE_ROWS * plan->activation_column[l] + row * columns,
                             .t = tangents + TRPO_TILE_ROWS * plan->activation_column[plan->layers] + row * ldt,
                             .ldt = ldt};
}

/* Rows of a tile whose Jacobians lie in the L1 cache while both contractions pass over them. */
INLINE size_t F(contracted_rows)(const trpo_mlp *plan) {
    enum { BYTES = 16384 };
    const size_t row = plan->widths[plan->layers] * plan->activation_column[plan->layers - 1] * sizeof(REAL);
    return row * TRPO_TILE_ROWS <= BYTES ? TRPO_TILE_ROWS : (row >= BYTES ? 1 : BYTES / row);
}

/* ---- a tile's part of J v and of J' d ----
 *
 * tangents: as a tile of activations, OUT. First D_l (V_l a_(l-1) + v_l) of every hidden layer, and of the output what it
 * and the last hidden layer give of J v. The contractions add what the other layers give. Then the same memory has d of
 * every layer. */
static void F(jacobian_tangents)(const trpo_mlp *plan, const REAL *packed, const REAL *packed_v, size_t rows,
                                 const REAL *x, const REAL *tile, REAL *tangents, F(ahead_) * ahead) {
    const int top = plan->layers - 1;
    for (int l = 1; l <= plan->layers; l++) {
        const REAL *below = l > 1 ? tile + TRPO_TILE_ROWS * plan->activation_column[l - 1] : x;
        const F(product_) p = {.row_stride = l > 1 ? plan->padded[l - 1] : plan->widths[0],
                               .k_stride = 1,
                               .k1 = plan->widths[l - 1],
                               .x1 = below,
                               .b1 = packed_v + plan->forward_weight[l - 1],
                               .k2 = l > top ? plan->widths[top] : 0,
                               .x2 = tangents + TRPO_TILE_ROWS * plan->activation_column[top],
                               .b2 = packed + plan->forward_weight[top],
                               .bias = packed_v + plan->forward_bias[l - 1],
                               .y = tangents + TRPO_TILE_ROWS * plan->activation_column[l],
                               .ldy = plan->padded[l],
                               .epilogue = l > top ? F(STORE_) : F(TIMES_DERIVATIVE_),
                               .activation = plan->activation,
                               .a = l > top ? NULL : F(derivative_place)(plan, tile, l),
                               .ahead = ahead};
        F(multiply)(&p, rows, plan->padded[l]);
    }
}

/* sums (+)= J' d, with d of all layers but the last hidden one in `tangents`; that one's is written here. */
static void F(jacobian_sums)(const trpo_mlp *plan, const REAL *packed_backward, size_t rows, const REAL *x,
                             const REAL *tile, REAL *tangents, REAL *sums, int first, F(ahead_) * ahead) {
    const int top = plan->layers - 1;
    const F(product_) back = {.row_stride = plan->padded[plan->layers],
                              .k_stride = 1,
                              .k1 = plan->widths[plan->layers],
                              .x1 = tangents + TRPO_TILE_ROWS * plan->activation_column[plan->layers],
                              .b1 = packed_backward + plan->backward_weight[top],
                              .y = tangents + TRPO_TILE_ROWS * plan->activation_column[top],
                              .ldy = plan->padded[top],
                              .epilogue = F(TIMES_DERIVATIVE_),
                              .activation = plan->activation,
                              .a = F(derivative_place)(plan, tile, top),
                              .ahead = ahead};
    F(multiply)(&back, rows, plan->padded[top]);
    for (int l = top; l >= 0; l--) {
        const REAL *below = l ? tile + TRPO_TILE_ROWS * plan->activation_column[l] : x;
        F(layer_sums)(plan, l, rows, below, tangents + TRPO_TILE_ROWS * plan->activation_column[l + 1], sums, first,
                      ahead);
    }
}
#undef LANES
#undef LANE_NUMBERS
#undef UNROLL
