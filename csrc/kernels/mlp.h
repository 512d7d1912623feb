/* Multilayer perceptron over one tile of samples: forward, forward-mode (jvp) and reverse-mode (vjp) passes.
 * Contracts of what the table has are in trpo/kernels.h. */

static void F(mlp_plan)(int layers, const size_t *widths, trpo_activation activation, trpo_mlp *plan) {
    memset(plan, 0, sizeof *plan);
    plan->layers = layers;
    plan->activation = activation;
    size_t widest = 0;
    for (int l = 0; l <= layers; l++) {
        plan->widths[l] = widths[l];
        plan->padded[l] = F(round_up)(widths[l]);
        if (l > 0 && plan->padded[l] > widest) widest = plan->padded[l];
        if (l > 0) {
            plan->activation_column[l] = plan->activation_items;
            plan->activation_items += plan->padded[l];
        }
    }
    for (int l = 1; l < layers; l++) {
        plan->derivative_column[l] = plan->activation_column[l];
        if (!trpo_keeps_derivative(activation)) continue;
        plan->derivative_column[l] = plan->activation_items;
        plan->activation_items += plan->padded[l];
    }
    for (int l = 0; l < layers; l++) {
        const size_t in = plan->widths[l], out = plan->widths[l + 1];
        const size_t in_padded = plan->padded[l], out_padded = plan->padded[l + 1];
        plan->weight[l] = plan->parameters;
        plan->bias[l] = plan->parameters + out * in;
        plan->parameters += out * in + out;
        plan->forward_weight[l] = plan->forward_items;
        plan->forward_bias[l] = plan->forward_items + in * out_padded;
        plan->forward_items += in * out_padded + out_padded;
        plan->backward_weight[l] = plan->backward_items;
        if (l > 0) plan->backward_items += out * in_padded;
        /* the inputs have no padding, so the first layer's vectors must run along its outputs */
        plan->transposed[l] = l == 0 || in * out_padded <= out * in_padded;
        plan->sum_weight[l] = plan->sum_items;
        plan->sum_items += plan->transposed[l] ? in * out_padded : out * in_padded;
        plan->sum_bias[l] = plan->sum_items;
        plan->sum_items += out_padded;
    }
    plan->tile_activations = 4 * widest * TRPO_TILE_ROWS;
    plan->scratch_items = plan->tile_activations + (plan->activation_items + plan->padded[layers]) * TRPO_TILE_ROWS;
}

static void F(mlp_pack_forward)(const trpo_mlp *plan, const void *parameters_, void *packed_) {
    const REAL *parameters = parameters_;
    REAL *packed = packed_;
    for (int l = 0; l < plan->layers; l++) {
        const size_t in = plan->widths[l], out = plan->widths[l + 1];
        F(pack_panels)(in, out, parameters + plan->weight[l], 1, in, packed + plan->forward_weight[l]);
        F(pack_panels)(1, out, parameters + plan->bias[l], 0, 1, packed + plan->forward_bias[l]);
    }
}

static void F(mlp_pack_backward)(const trpo_mlp *plan, const void *parameters_, void *packed_) {
    const REAL *parameters = parameters_;
    REAL *packed = packed_;
    for (int l = 1; l < plan->layers; l++)
        F(pack_panels)(plan->widths[l + 1], plan->widths[l], parameters + plan->weight[l], plan->widths[l], 1,
                       packed + plan->backward_weight[l]);
}

/* What the derivatives of hidden layer l's activations are computed from, in a tile of activations. */
INLINE REAL *F(derivative_place)(const trpo_mlp *plan, const REAL *tile, int l) {
    return (REAL *)tile + TRPO_TILE_ROWS * plan->derivative_column[l];
}

/* Hidden layer l of a tile, from its pre-activations; with `derivatives` those, too, where they are kept. */
INLINE void F(activate_layer)(const trpo_mlp *plan, int l, size_t rows, REAL *tile, int derivatives) {
    REAL *z = tile + TRPO_TILE_ROWS * plan->activation_column[l];
    const size_t n = rows * plan->padded[l];
    if (trpo_keeps_derivative(plan->activation))
        F(activate_and_differentiate)(plan->activation, n, z, derivatives ? F(derivative_place)(plan, tile, l) : NULL);
    else
        F(activate)(plan->activation, n, z);
}

/* Activations of a tile: x is rows x widths[0]. The output layer is not activated. */
NOINLINE void F(mlp_pass)(const trpo_mlp *plan, const REAL *packed, size_t rows, const REAL *x, REAL *tile,
                          int derivatives) {
    for (int l = 0; l < plan->layers; l++) {
        const size_t columns = plan->padded[l + 1];
        REAL *y = tile + TRPO_TILE_ROWS * plan->activation_column[l + 1];
        const F(product_) p = {.row_stride = l ? plan->padded[l] : plan->widths[0],
                               .k_stride = 1,
                               .k1 = plan->widths[l],
                               .x1 = x,
                               .b1 = packed + plan->forward_weight[l],
                               .bias = packed + plan->forward_bias[l],
                               .y = y,
                               .ldy = columns};
        F(multiply)(&p, rows, columns);
        if (l + 1 < plan->layers) F(activate_layer)(plan, l + 1, rows, tile, derivatives);
        x = y;
    }
}

/* All that the passes below read. */
INLINE void F(mlp_forward)(const trpo_mlp *plan, const REAL *packed, size_t rows, const REAL *x, REAL *tile) {
    F(mlp_pass)(plan, packed, rows, x, tile, 1);
}

/* For those who want outputs alone. */
INLINE void F(mlp_values)(const trpo_mlp *plan, const REAL *packed, size_t rows, const REAL *x, REAL *tile) {
    F(mlp_pass)(plan, packed, rows, x, tile, 0);
}

/* Tangent of the output, J v, for a tile of known activations. scratch: two buffers of a tile. ahead: what to fetch
 * meanwhile, or NULL. Returns the tangent: rows x padded[layers], inside scratch. */
static REAL *F(mlp_jvp)(const trpo_mlp *plan, const REAL *packed, const REAL *packed_v, size_t rows, const REAL *x,
                        const REAL *tile, REAL *scratch, F(ahead_) * ahead) {
    const size_t buffer = plan->tile_activations / 4;
    REAL *tangent = NULL;
    for (int l = 0; l < plan->layers; l++) {
        const size_t columns = plan->padded[l + 1];
        REAL *y = scratch + (l % 2) * buffer;
        const int last = l + 1 == plan->layers;
        const REAL *below = l ? tile + TRPO_TILE_ROWS * plan->activation_column[l] : x;
        const F(product_) p = {.row_stride = l ? plan->padded[l] : plan->widths[0],
                               .k_stride = 1,
                               .k1 = plan->widths[l],
                               .x1 = below,
                               .b1 = packed_v + plan->forward_weight[l],
                               .k2 = l ? plan->widths[l] : 0,
                               .x2 = tangent,
                               .b2 = packed + plan->forward_weight[l],
                               .bias = packed_v + plan->forward_bias[l],
                               .y = y,
                               .ldy = columns,
                               .epilogue = last ? F(STORE_) : F(TIMES_DERIVATIVE_),
                               .activation = plan->activation,
                               .ahead = ahead,
                               .a = last ? NULL : F(derivative_place)(plan, tile, l + 1)};
        F(multiply)(&p, rows, columns);
        tangent = y;
    }
    return tangent;
}

/* sums (+)= the sum of the rows of d; stored with `first`. */
INLINE void F(add_rows)(size_t rows, size_t columns, const REAL *d, REAL *sums, int first) {
    for (size_t c = 0; c < columns; c += VLEN) {
        /* A tile's rows first, as the weights' products have it: each row by itself added to a long sum would lose
         * more digits. Four chains, so that an addition need not wait for the one before. */
        vreal chain[4] = {{0}};
        size_t r = 0;
        for (; r + 4 <= rows; r += 4)
            for (int i = 0; i < 4; i++) chain[i] += F(load)(d + (r + (size_t)i) * columns + c);
        for (; r < rows; r++) chain[0] += F(load)(d + r * columns + c);
        const vreal sum = (chain[0] + chain[1]) + (chain[2] + chain[3]);
        F(store)(sums + c, first ? sum : F(load)(sums + c) + sum);
    }
}

/* sums (+)= what layer l gets from d, its outputs' cotangent in a tile: rows x padded[l + 1], zero in the padding. below:
 * the layer's inputs. With `first` the accumulator is stored to, so callers need not clear it. */
static void F(layer_sums)(const trpo_mlp *plan, int l, size_t rows, const REAL *below, const REAL *d, REAL *sums,
                          int first, F(ahead_) * ahead) {
    const size_t in = plan->widths[l], out = plan->widths[l + 1];
    const size_t in_padded = plan->padded[l], out_padded = plan->padded[l + 1];
    const size_t lda = l ? in_padded : in;
    /* dW' = below' d, vectors along the outputs; or dW = d' below, vectors along the inputs */
    const int transposed = plan->transposed[l];
    const size_t columns = transposed ? out_padded : in_padded;
    const F(product_) outer = {.row_stride = 1,
                               .k_stride = transposed ? lda : out_padded,
                               .k1 = rows,
                               .x1 = transposed ? below : d,
                               .b1 = transposed ? d : below,
                               .ldb = transposed ? out_padded : lda,
                               .y = sums + plan->sum_weight[l],
                               .ldy = columns,
                               .epilogue = first ? F(STORE_) : F(ADD_),
                               .ahead = ahead};
    F(multiply)(&outer, transposed ? in : out, columns);
    F(add_rows)(rows, out_padded, d, sums + plan->sum_bias[l], first);
}

/* sums (+)= J' d for a tile: d is rows x padded[layers], zero in the padding, not modified; scratch: two tile buffers, d may
 * lie in neither. first: as for layer_sums; ahead: as for mlp_jvp. */
static void F(mlp_vjp)(const trpo_mlp *plan, const REAL *packed_backward, size_t rows, const REAL *x, const REAL *tile,
                       const REAL *d, REAL *scratch, REAL *sums, int first, F(ahead_) * ahead) {
    const size_t buffer = plan->tile_activations / 4;
    for (int l = plan->layers - 1; l >= 0; l--) {
        const REAL *below = l ? tile + TRPO_TILE_ROWS * plan->activation_column[l] : x;
        F(layer_sums)(plan, l, rows, below, d, sums, first, ahead);
        if (l == 0) break;
        REAL *next = scratch + (l % 2) * buffer;
        const F(product_) back = {.row_stride = plan->padded[l + 1],
                                  .k_stride = 1,
                                  .k1 = plan->widths[l + 1],
                                  .x1 = d,
                                  .b1 = packed_backward + plan->backward_weight[l],
                                  .y = next,
                                  .ldy = plan->padded[l],
                                  .epilogue = F(TIMES_DERIVATIVE_),
                                  .activation = plan->activation,
                                  .a = F(derivative_place)(plan, tile, l),
                                  .ahead = ahead};
        F(multiply)(&back, rows, plan->padded[l]);
        d = next;
    }
}

/* flat[i] = sum over blocks of sums, in double and in block order. The first block's sums are overwritten. */
static void F(mlp_reduce)(const trpo_mlp *plan, int blocks, REAL *sums, REAL *flat) {
    enum { CHUNK = 64 };
    for (size_t start = 0; start < plan->sum_items && blocks > 1; start += CHUNK) {
        const size_t count = plan->sum_items - start < CHUNK ? plan->sum_items - start : CHUNK;
        double total[CHUNK] = {0};
        for (int b = 0; b < blocks; b++) {
            const REAL *partial = sums + (size_t)b * plan->sum_items + start;
            for (size_t i = 0; i < count; i++) total[i] += (double)partial[i];
        }
        for (size_t i = 0; i < count; i++) sums[start + i] = (REAL)total[i];
    }
    for (int l = 0; l < plan->layers; l++) {
        const size_t in = plan->widths[l], out = plan->widths[l + 1];
        const size_t o_stride = plan->transposed[l] ? 1 : plan->padded[l];
        const size_t i_stride = plan->transposed[l] ? plan->padded[l + 1] : 1;
        const REAL *dw = sums + plan->sum_weight[l];
        F(transpose)(out, in, dw, o_stride, i_stride, flat + plan->weight[l], in, 1);
        memcpy(flat + plan->bias[l], sums + plan->sum_bias[l], out * sizeof(REAL));
    }
}
