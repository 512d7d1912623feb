/* The value fit with products of bf16 numbers that sum in float32; contracts are in trpo/kernels.h, the arithmetic in
 * bfloat16_table.h.
 *
 * Weights, activations and what is propagated back are rounded on their way into a product of hidden layers. Parameters,
 * Adam, biases, derivatives and the output, which is one column, are float32's. */

/* A thread's parts of fit->bfloat16.scratch. */
typedef struct {
    F(narrow_tile_) tile;
    trpo_bfloat16_pair *forward, *backward; /* weights, row by row of pairs: not in panels */
} F(narrow_fit_);

INLINE F(narrow_fit_) F(narrow_fit_of)(const trpo_critic_fit *fit, int thread) {
    const trpo_mlp *plan = fit->network;
    trpo_bfloat16_pair *base =
        (trpo_bfloat16_pair *)fit->bfloat16.scratch + (size_t)thread * trpo_critic_bfloat16_items(plan);
    F(narrow_fit_)
    parts = {.tile = F(narrow_tile_at)(plan, base), .forward = base + trpo_bfloat16_tile_items(plan)};
    parts.backward = parts.forward + trpo_bfloat16_layer_of(plan, plan->layers).forward;
    return parts;
}

/* rows x columns, in panels, as pairs of rows. */
static void F(narrow_panels)(const trpo_critic_fit *fit, size_t rows, size_t columns, const REAL *panels,
                             trpo_bfloat16_pair *down) {
    for (size_t column = 0, width; column < columns; column += width) {
        width = F(panel_vectors)((columns - column) / VLEN) * VLEN;
        fit->bfloat16.kernels->narrow(rows, width, panels + column * rows, width, NULL, down + column, columns);
    }
}

static void F(critic_pack_narrow)(const trpo_critic_fit *fit, int thread) {
    const trpo_mlp *plan = fit->network;
    const F(narrow_fit_) n = F(narrow_fit_of)(fit, thread);
    const REAL *theta = fit->state[0], *backward = F(fit_scratch_of)(fit, thread).backward;
    F(critic_pack)(fit, thread);
    for (int l = 0; l < plan->layers - 1; l++) {
        const trpo_bfloat16_layer at = trpo_bfloat16_layer_of(plan, l);
        F(narrow_panels)(fit, plan->widths[l], plan->padded[l + 1], theta + plan->forward_weight[l],
                         n.forward + at.forward);
        if (l == 0) continue;
        F(narrow_panels)(fit, plan->widths[l + 1], plan->padded[l], backward + plan->backward_weight[l],
                         n.backward + at.backward);
    }
}

/* As hidden_forward. */
static void F(narrow_forward)(const trpo_critic_fit *fit, int thread, size_t rows, const REAL *x, REAL *tile) {
    const trpo_mlp *plan = fit->network;
    const struct trpo_bfloat16_kernels *kernels = fit->bfloat16.kernels;
    const F(narrow_fit_) n = F(narrow_fit_of)(fit, thread);
    for (int l = 0; l < plan->layers - 1; l++) {
        const trpo_bfloat16_layer at = trpo_bfloat16_layer_of(plan, l);
        const size_t in_columns = F(input_columns)(plan, l), columns = plan->padded[l + 1];
        REAL *y = tile + TRPO_TILE_ROWS * plan->activation_column[l + 1];
        kernels->narrow(rows, in_columns, x, plan->padded[l], n.tile.inputs_along + at.along,
                        n.tile.inputs_down + at.down, in_columns);
        const product_bf16 p = {.row_stride = trpo_bfloat16_pairs(in_columns),
                                .k_stride = 1,
                                .k1 = trpo_bfloat16_pairs(plan->widths[l]),
                                .x1 = n.tile.inputs_along + at.along,
                                .b1 = n.forward + at.forward,
                                .ldb = columns,
                                .bias = (const REAL *)fit->state[0] + plan->forward_bias[l],
                                .y = y,
                                .ldy = columns};
        kernels->multiply(&p, rows, columns);
        F(activate_layer)(plan, l + 1, rows, tile, 1);
        x = y;
    }
}

/* As hidden_backward, after narrow_forward of the same tile. */
static void F(narrow_backward)(const trpo_critic_fit *fit, int thread, size_t rows, const REAL *d, REAL *sums,
                               int first) {
    const trpo_mlp *plan = fit->network;
    const struct trpo_bfloat16_kernels *kernels = fit->bfloat16.kernels;
    const F(narrow_fit_) n = F(narrow_fit_of)(fit, thread);
    const F(fit_scratch_) own = F(fit_scratch_of)(fit, thread);
    for (int l = plan->layers - 2; l >= 0; l--) {
        const trpo_bfloat16_layer at = trpo_bfloat16_layer_of(plan, l);
        const size_t in = plan->widths[l], in_columns = F(input_columns)(plan, l), out_padded = plan->padded[l + 1];
        kernels->narrow(rows, out_padded, d, out_padded, l ? n.tile.along : NULL, n.tile.down, out_padded);
        for (size_t column = 0, width; column < out_padded; column += width) {
            width = F(panel_vectors)((out_padded - column) / VLEN) * VLEN;
            const product_bf16 outer = {.row_stride = 1,
                                        .k_stride = in_columns,
                                        .k1 = trpo_bfloat16_pairs(rows),
                                        .x1 = n.tile.inputs_down + at.down,
                                        .b1 = n.tile.down + column,
                                        .ldb = out_padded,
                                        .y = sums + plan->forward_weight[l] + column * in,
                                        .ldy = width,
                                        .epilogue = first ? STORE_bf16 : ADD_bf16};
            kernels->multiply(&outer, in, width);
        }
        F(add_rows)(rows, out_padded, d, sums + plan->forward_bias[l], first);
        if (l == 0) break;
        REAL *next = F(cotangent)(plan, own.scratch, l);
        const product_bf16 back = {.row_stride = trpo_bfloat16_pairs(out_padded),
                                   .k_stride = 1,
                                   .k1 = trpo_bfloat16_pairs(plan->widths[l + 1]),
                                   .x1 = n.tile.along,
                                   .b1 = n.backward + at.backward,
                                   .ldb = in_columns,
                                   .y = next,
                                   .ldy = in_columns,
                                   .epilogue = TIMES_DERIVATIVE_bf16,
                                   .activation = plan->activation,
                                   .a = F(derivative_place)(plan, own.tile, l)};
        kernels->multiply(&back, rows, in_columns);
        d = next;
    }
}

static void F(critic_narrow_block)(void *job, int task, int thread) {
    (void)task;
    F(critic_block_by)(job, thread, F(critic_pack_narrow), F(narrow_forward), F(narrow_backward));
}

static trpo_adam_outcome F(critic_step_narrow)(const trpo_critic_fit *fit, size_t count, const int64_t *order,
                                               int64_t step, double *squares) {
    return F(critic_step_by)(fit, count, order, step, squares, F(critic_narrow_block));
}
