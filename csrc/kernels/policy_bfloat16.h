/* Fisher products of bf16 numbers with float32 sums; contracts are in trpo/kernels.h, the arithmetic in bfloat16_table.h.
 *
 * As fisher_block, tile by tile: the inputs of all layers are rounded first, from the activations in float32 that are cached
 * anyway. M multiplies float32 numbers. */

INLINE F(narrow_tile_) F(narrow_tile_of)(const trpo_policy_batch *b, int thread) {
    const trpo_mlp *plan = b->problem.network;
    const size_t items = trpo_bfloat16_tile_items(plan);
    return F(narrow_tile_at)(plan, (trpo_bfloat16_pair *)b->bfloat16.scratch + (size_t)thread * items);
}

/* The packs of a network's parameters: forward, and with `backward` those behind it. */
static void F(pack_narrow)(const trpo_mlp *plan, const struct trpo_bfloat16_kernels *kernels, const REAL *parameters,
                           trpo_bfloat16_pair *packed, int backward) {
    const size_t forward_end = trpo_bfloat16_layer_of(plan, plan->layers).forward;
    for (int l = 0; l < plan->layers; l++) {
        const trpo_bfloat16_layer at = trpo_bfloat16_layer_of(plan, l);
        const size_t in = plan->widths[l], out = plan->widths[l + 1];
        const REAL *weight = parameters + plan->weight[l];
        kernels->pack_panels(in, out, plan->padded[l + 1], weight, 1, in, packed + at.forward);
        if (l == 0 || !backward) continue;
        kernels->pack_panels(out, in, plan->padded[l], weight, in, 1, packed + forward_end + at.backward);
    }
}

static void F(policy_narrow)(const trpo_policy_batch *b) {
    const REAL *network = (const REAL *)b->problem.parameters + F(log_std_items)(b);
    F(pack_narrow)(b->problem.network, b->bfloat16.kernels, network, b->bfloat16.weights, 1);
}

/* A tangent's biases, each layer's padded with zeros, behind its weights. */
INLINE REAL *F(narrow_biases)(const trpo_policy_batch *b) {
    const trpo_mlp *plan = b->problem.network;
    return (REAL *)b->bfloat16.trial + trpo_bfloat16_layer_of(plan, plan->layers).forward;
}

/* J v of a tile, rows x padded[layers], in one of two tile buffers at scratch. */
static REAL *F(narrow_jvp)(const trpo_policy_batch *b, const F(narrow_tile_) * n, size_t rows, const REAL *tile,
                           REAL *scratch, ahead_bf16 *ahead) {
    const trpo_mlp *plan = b->problem.network;
    const REAL *bias = F(narrow_biases)(b);
    REAL *y = NULL;
    for (int l = 0; l < plan->layers; l++) {
        const trpo_bfloat16_layer at = trpo_bfloat16_layer_of(plan, l);
        const size_t columns = plan->padded[l + 1];
        const int last = l + 1 == plan->layers;
        y = scratch + (l % 2) * (plan->tile_activations / 4);
        const product_bf16 p = {.row_stride = trpo_bfloat16_pairs(F(input_columns)(plan, l)),
                                .k_stride = 1,
                                .k1 = trpo_bfloat16_pairs(plan->widths[l]),
                                .x1 = n->inputs_along + at.along,
                                .b1 = (const trpo_bfloat16_pair *)b->bfloat16.trial + at.forward,
                                .k2 = l ? trpo_bfloat16_pairs(plan->widths[l]) : 0,
                                .x2 = n->along,
                                .b2 = (const trpo_bfloat16_pair *)b->bfloat16.weights + at.forward,
                                .bias = bias,
                                .y = y,
                                .ldy = columns,
                                .epilogue = last ? STORE_bf16 : TIMES_DERIVATIVE_bf16,
                                .activation = plan->activation,
                                .a = last ? NULL : F(derivative_place)(plan, tile, l + 1),
                                .ahead = ahead};
        b->bfloat16.kernels->multiply(&p, rows, columns);
        if (!last) b->bfloat16.kernels->narrow(rows, columns, y, columns, n->along, NULL, 0);
        bias += columns;
    }
    return y;
}

/* sums (+)= J' d; d: rows x padded[layers], zero in the padding. scratch: two tile buffers, d in neither. */
static void F(narrow_vjp)(const trpo_policy_batch *b, const F(narrow_tile_) * n, size_t rows, const REAL *tile,
                          const REAL *d, REAL *scratch, REAL *sums, int first, ahead_bf16 *ahead) {
    const struct trpo_bfloat16_kernels *kernels = b->bfloat16.kernels;
    const trpo_mlp *plan = b->problem.network;
    const trpo_bfloat16_pair *backward =
        (const trpo_bfloat16_pair *)b->bfloat16.weights + trpo_bfloat16_layer_of(plan, plan->layers).forward;
    for (int l = plan->layers - 1; l >= 0; l--) {
        const trpo_bfloat16_layer at = trpo_bfloat16_layer_of(plan, l);
        const size_t in_columns = F(input_columns)(plan, l), out_columns = plan->padded[l + 1];
        const trpo_bfloat16_pair *below = n->inputs_down + at.down;
        kernels->narrow(rows, out_columns, d, out_columns, l ? n->along : NULL, n->down, out_columns);
        /* as layer_sums */
        const int transposed = plan->transposed[l];
        const size_t columns = transposed ? out_columns : in_columns;
        const product_bf16 outer = {.row_stride = 1,
                                    .k_stride = transposed ? in_columns : out_columns,
                                    .k1 = trpo_bfloat16_pairs(rows),
                                    .x1 = transposed ? below : n->down,
                                    .b1 = transposed ? n->down : below,
                                    .ldb = columns,
                                    .y = sums + plan->sum_weight[l],
                                    .ldy = columns,
                                    .epilogue = first ? STORE_bf16 : ADD_bf16,
                                    .ahead = ahead};
        kernels->multiply(&outer, transposed ? plan->widths[l] : plan->widths[l + 1], columns);
        F(add_rows)(rows, out_columns, d, sums + plan->sum_bias[l], first);
        if (l == 0) break;
        REAL *next = scratch + (l % 2) * (plan->tile_activations / 4);
        const product_bf16 back = {.row_stride = trpo_bfloat16_pairs(out_columns),
                                   .k_stride = 1,
                                   .k1 = trpo_bfloat16_pairs(plan->widths[l + 1]),
                                   .x1 = n->along,
                                   .b1 = backward + at.backward,
                                   .y = next,
                                   .ldy = in_columns,
                                   .epilogue = TIMES_DERIVATIVE_bf16,
                                   .activation = plan->activation,
                                   .a = F(derivative_place)(plan, tile, l),
                                   .ahead = ahead};
        kernels->multiply(&back, rows, in_columns);
        d = next;
    }
}

static void F(fisher_narrow_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->problem.network;
    const F(narrow_tile_) n = F(narrow_tile_of)(b, thread);
    REAL *scratch = F(thread_scratch)(b, thread);
    REAL *sums = (REAL *)b->work.sums + (size_t)block * plan->sum_items;
    int first = 1;
    FOR_TILES(b->problem.rows, b->work.blocks, block) {
        const REAL *x = F(tile_input)(b, row), *tile = F(old_tile)(b, row, count, thread);
        const F(ahead_) next = F(tile_ahead)(b, row + count, end);
        ahead_bf16 ahead = {{next.next[0], next.next[1]}, {next.end[0], next.end[1]}};
        for (int l = 0; l < plan->layers; l++) {
            const trpo_bfloat16_layer at = trpo_bfloat16_layer_of(plan, l);
            const size_t columns = F(input_columns)(plan, l);
            b->bfloat16.kernels->narrow(count, columns, l ? tile + TRPO_TILE_ROWS * plan->activation_column[l] : x,
                                        columns, n.inputs_along + at.along, n.inputs_down + at.down, columns);
        }
        REAL *t = F(narrow_jvp)(b, &n, count, tile, scratch, &ahead);
        F(output_fisher)(job, F(tile_metric)(b, tile, 0), count, t);
        F(narrow_vjp)(b, &n, count, tile, t, scratch + 2 * (plan->tile_activations / 4), sums, first, &ahead);
        first = 0;
    }
}

static void F(policy_fisher_narrow)(const trpo_policy_batch *b, const void *v_, void *out_) {
    const REAL *v = v_, *network = v + F(log_std_items)(b);
    REAL *out = out_, *bias = F(narrow_biases)(b);
    REAL precision[TRPO_MAX_OUTPUTS + TRPO_VECTOR_BYTES / sizeof(REAL)];
    const trpo_mlp *plan = b->problem.network;
    F(batch_job_) job = {.batch = b, .precision = precision};
    F(output_precision)(b, precision);
    F(pack_narrow)(plan, b->bfloat16.kernels, network, b->bfloat16.trial, 0);
    for (int l = 1; l <= plan->layers; bias += plan->padded[l++])
        F(pack_panels)(1, plan->widths[l], network + plan->bias[l - 1], 0, 1, bias);
    const int threads = b->work.threads < b->bfloat16.threads ? b->work.threads : b->bfloat16.threads;
    trpo_parallel(b->work.blocks, threads, F(fisher_narrow_block), &job);
    F(reduce_product)(b, v, out);
}
