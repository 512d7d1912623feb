/* Acting and batched forward passes. */

/* actions, log_probs (REAL or int64 as the contract of trpo_actor says) from one row's mean or log-softmax. */
INLINE void F(draw_row)(const trpo_actor *actor, size_t n, const REAL *output, const double *inverse_std,
                        double log_normalizer, uint32_t row, void *actions, size_t i, REAL *log_prob) {
    if (actor->distribution == TRPO_GAUSSIAN) {
        REAL *action = (REAL *)actions + i * n;
        double noise[TRPO_MAX_OUTPUTS + 1];
        if (!actor->deterministic) trpo_random_normal(&actor->key, row, (int)n, noise);
        for (size_t j = 0; j < n; j++)
            action[j] = actor->deterministic ? output[j] : (REAL)((double)output[j] + noise[j] / inverse_std[j]);
        *log_prob = F(gaussian_log_prob)(n, output, action, inverse_std, log_normalizer);
    } else {
        int64_t action;
        double u = 0;
        if (!actor->deterministic) trpo_random_uniform(&actor->key, row, 1, &u);
        action = actor->deterministic ? F(categorical_mode)(n, output) : F(categorical_draw)(n, output, u);
        ((int64_t *)actions)[i] = action;
        *log_prob = output[action];
    }
}

/* Sample from given outputs: rows x n means or logits (not modified), noise rows first_row ... */
static void F(sample)(const trpo_actor *actor, size_t n, size_t rows, const void *outputs_, uint32_t first_row,
                      void *actions, void *log_probs) {
    double inverse_std[TRPO_MAX_OUTPUTS], log_normalizer = 0;
    REAL row_output[TRPO_MAX_OUTPUTS];
    if (actor->distribution == TRPO_GAUSSIAN) log_normalizer = F(gaussian_prepare)(n, actor->log_std, inverse_std);
    for (size_t i = 0; i < rows; i++) {
        memcpy(row_output, (const REAL *)outputs_ + i * n, n * sizeof(REAL));
        if (actor->distribution == TRPO_CATEGORICAL) F(log_softmax)(n, row_output);
        F(draw_row)(actor, n, row_output, inverse_std, log_normalizer, first_row + (uint32_t)i, actions, i,
                    (REAL *)log_probs + i);
    }
}

/* One call per environment step.
 *   packed: forward pack of the network.  scratch: scratch_items.
 *   observations: rows x widths[0] of float (observations_double = 0) or double, raw.
 *   normalized: REAL, rows x widths[0], OUT.  actions: REAL rows x n, or int64 rows, OUT.  log_probs: REAL, rows, OUT.
 *   env_actions: float or double (env_double) rows x n clipped to [low, high], or int64 rows with `start` added, OUT.
 * On a bad row *bad_row names it and what was written for this call is meaningless. */
static trpo_act_outcome F(act)(const trpo_actor *actor, const void *packed, size_t rows, const void *observations,
                               int observations_double, uint32_t first_row, void *normalized_, void *actions,
                               void *log_probs, void *env_actions, int env_double, void *scratch_, size_t *bad_row) {
    const trpo_mlp *plan = actor->network;
    const size_t inputs = plan->widths[0], n = plan->widths[plan->layers], padded = plan->padded[plan->layers];
    REAL *normalized = normalized_, *tile = (REAL *)scratch_ + plan->tile_activations;
    REAL *outputs = tile + TRPO_TILE_ROWS * plan->activation_column[plan->layers];
    double inverse_std[TRPO_MAX_OUTPUTS], log_normalizer = 0;
    if (actor->distribution == TRPO_GAUSSIAN) log_normalizer = F(gaussian_prepare)(n, actor->log_std, inverse_std);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < inputs; j++) {
            const size_t at = i * inputs + j;
            double x =
                observations_double ? ((const double *)observations)[at] : (double)((const float *)observations)[at];
            const int finite = isfinite(x);
            if (actor->mean) {
                x = (x - actor->mean[j]) * actor->scale[j];
                x = x > actor->clip ? actor->clip : (x < -actor->clip ? -actor->clip : x);
            }
            normalized[at] = (REAL)x;
            if (!finite || !isfinite(normalized[at])) { /* a double may be too large for REAL */
                *bad_row = i;
                return TRPO_ACT_BAD_OBSERVATION;
            }
        }
    for (size_t row = 0; row < rows; row += TRPO_TILE_ROWS) {
        const size_t count = rows - row < TRPO_TILE_ROWS ? rows - row : TRPO_TILE_ROWS;
        F(mlp_forward)(plan, packed, count, normalized + row * inputs, tile, TRPO_TILE_ROWS, 0);
        for (size_t k = 0; k < count; k++) {
            const size_t i = row + k;
            REAL *output = outputs + k * padded, *log_prob = (REAL *)log_probs + i;
            if (actor->distribution == TRPO_CATEGORICAL) F(log_softmax)(n, output);
            F(draw_row)(actor, n, output, inverse_std, log_normalizer, first_row + (uint32_t)i, actions, i, log_prob);
            if (!isfinite(*log_prob)) {
                *bad_row = i;
                return TRPO_ACT_BAD_ACTION;
            }
            if (actor->distribution == TRPO_CATEGORICAL) {
                ((int64_t *)env_actions)[i] = ((int64_t *)actions)[i] + actor->start;
                continue;
            }
            for (size_t j = 0; j < n; j++) {
                double a = (double)((REAL *)actions)[i * n + j];
                if (actor->low) a = a < actor->low[j] ? actor->low[j] : (a > actor->high[j] ? actor->high[j] : a);
                if (env_double)
                    ((double *)env_actions)[i * n + j] = a;
                else
                    ((float *)env_actions)[i * n + j] = (float)a;
            }
        }
    }
    return TRPO_ACT_OK;
}

typedef struct {
    const trpo_mlp *plan;
    const REAL *packed, *x;
    REAL *scratch, *out;
    size_t rows;
    int blocks;
} F(forward_job_);

static void F(forward_task)(void *job_, int block, int thread) {
    const F(forward_job_) *job = job_;
    const trpo_mlp *plan = job->plan;
    const size_t n = plan->widths[plan->layers], padded = plan->padded[plan->layers];
    REAL *tile = job->scratch + (size_t)thread * plan->scratch_items + plan->tile_activations;
    const REAL *outputs = tile + TRPO_TILE_ROWS * plan->activation_column[plan->layers];
    FOR_TILES(job, block) {
        F(mlp_forward)(plan, job->packed, count, job->x + row * plan->widths[0], tile, TRPO_TILE_ROWS, 0);
        for (size_t i = 0; i < count; i++) memcpy(job->out + (row + i) * n, outputs + i * padded, n * sizeof(REAL));
    }
}

/* out: rows x widths[layers], outputs of the network. scratch: threads * scratch_items. */
static void F(outputs_of)(const trpo_mlp *plan, const void *packed, size_t rows, const void *x, void *out,
                          void *scratch, int threads) {
    F(forward_job_)
    job = {.plan = plan,
           .packed = packed,
           .x = x,
           .scratch = scratch,
           .out = out,
           .rows = rows,
           .blocks = trpo_block_count(rows, plan->parameters)};
    trpo_parallel(job.blocks, threads, F(forward_task), &job);
}
