/* Acting and batched forward passes; contracts of what the table has are in trpo/kernels.h. */

/* Row i of what a call writes: its action and log-probability, from its resolved output. */
INLINE void F(act_row)(const trpo_actor *actor, const REAL *output, const double *inverse_std, double log_normalizer,
                       uint32_t first_row, size_t i, void *actions, void *log_probs) {
    const trpo_action_layout *layout = &actor->layout;
    void *action = (void *)F(row_action)(layout, actions, i);
    F(joint_draw)(layout, actor->deterministic ? NULL : &actor->key, first_row + (uint32_t)i, output, inverse_std,
                  action);
    ((REAL *)log_probs)[i] = (REAL)F(joint_log_prob)(layout, output, action, inverse_std, log_normalizer);
}

static void F(sample)(const trpo_actor *actor, size_t rows, const void *outputs_, const uint8_t *masks,
                      uint32_t first_row, void *actions, void *log_probs) {
    const size_t n = actor->layout.outputs, log_std_items = trpo_log_std_items(&actor->layout);
    double inverse_std[TRPO_MAX_OUTPUTS], log_normalizer = 0;
    REAL output[F(ROW_)];
    for (size_t j = n; j < F(round_up)(n); j++) output[j] = 0;
    if (log_std_items) log_normalizer = F(gaussian_prepare)(log_std_items, actor->log_std, inverse_std);
    for (size_t i = 0; i < rows; i++) {
        memcpy(output, (const REAL *)outputs_ + i * n, n * sizeof(REAL));
        F(joint_resolve)(&actor->layout, F(row_mask)(&actor->layout, masks, i), 1, output, n);
        F(act_row)(actor, output, inverse_std, log_normalizer, first_row, i, actions, log_probs);
    }
}

static void F(gaussian_actions)(size_t rows, size_t n, const void *means, const void *log_std, void *noise,
                                void *log_probs) {
    double inverse_std[TRPO_MAX_OUTPUTS], std[TRPO_MAX_OUTPUTS];
    const double log_normalizer = F(gaussian_prepare)(n, log_std, inverse_std);
    for (size_t j = 0; j < n; j++) std[j] = scalar_exp((double)((const REAL *)log_std)[j]);
    for (size_t i = 0; i < rows; i++) {
        const REAL *mean = (const REAL *)means + i * n;
        REAL *action = (REAL *)noise + i * n;
        for (size_t j = 0; j < n; j++) action[j] = (REAL)((double)mean[j] + (double)action[j] * std[j]);
        ((REAL *)log_probs)[i] = (REAL)F(gaussian_log_prob)(n, mean, action, inverse_std, log_normalizer);
    }
}

/* Row i of what goes to the environment: scaled and shifted where that is wanted and clipped to the bounds, or with the
 * start added. Without a scale nothing is multiplied, so that every bit of an action inside the bounds is the policy's. */
INLINE void F(environment_row)(const trpo_actor *actor, const void *actions, size_t i, void *env_actions,
                               int env_double) {
    const size_t n = actor->layout.components;
    for (size_t j = 0, at = i * n; j < n; j++, at++) {
        if (!trpo_action_is_real(&actor->layout)) {
            ((int64_t *)env_actions)[at] = ((const int64_t *)actions)[at] + (actor->start ? actor->start[j] : 0);
            continue;
        }
        double a = (double)((const REAL *)actions)[at];
        if (actor->action_scale) a = actor->action_scale[j] * a + actor->action_offset[j];
        if (actor->low) a = a < actor->low[j] ? actor->low[j] : (a > actor->high[j] ? actor->high[j] : a);
        if (env_double)
            ((double *)env_actions)[at] = a;
        else
            ((float *)env_actions)[at] = (float)a;
    }
}

typedef struct {
    const trpo_actor *actor;
    const void *packed, *observations;
    const uint8_t *masks;
    REAL *normalized;
    void *actions, *log_probs, *env_actions;
    REAL *scratch;
    size_t rows, tiles_each;
    int observations_double, env_double;
    uint32_t first_row;
    const double *inverse_std;
    double log_normalizer;
    size_t *bad_observation, *bad_action; /* first of each task, OUT; rows: none */
} F(act_job_);

static size_t F(normalize_rows)(size_t inputs, size_t first, size_t end, const void *observations,
                                int observations_double, const double *mean, const double *scale, double clip,
                                void *normalized) {
    REAL *out = normalized;
    for (size_t i = first; i < end; i++)
        for (size_t j = 0; j < inputs; j++) {
            const size_t at = i * inputs + j;
            double x =
                observations_double ? ((const double *)observations)[at] : (double)((const float *)observations)[at];
            const int finite = isfinite(x);
            if (mean) {
                x = (x - mean[j]) * scale[j];
                x = x > clip ? clip : (x < -clip ? -clip : x);
            }
            out[at] = (REAL)x;
            if (!finite || !isfinite(out[at])) return i; /* a double may be too large for REAL */
        }
    return end;
}

/* Some tiles of rows, one after the other. A row's bits do not depend on what is computed beside it. */
static void F(act_task)(void *job_, int task, int thread) {
    F(act_job_) *job = job_;
    const trpo_actor *actor = job->actor;
    const trpo_mlp *plan = actor->network;
    const trpo_action_layout *layout = &actor->layout;
    const size_t inputs = plan->widths[0], padded = plan->padded[plan->layers];
    REAL *tile = job->scratch + (size_t)thread * plan->scratch_items + plan->tile_activations;
    REAL *outputs = tile + TRPO_TILE_ROWS * plan->activation_column[plan->layers];
    const size_t first = (size_t)task * job->tiles_each * TRPO_TILE_ROWS;
    const size_t most = first + job->tiles_each * TRPO_TILE_ROWS, end = most < job->rows ? most : job->rows;
    job->bad_action[task] = job->rows;
    const size_t bad = F(normalize_rows)(inputs, first, end, job->observations, job->observations_double, actor->mean,
                                         actor->scale, actor->clip, job->normalized);
    job->bad_observation[task] = bad == end ? job->rows : bad;
    if (bad != end) return;
    for (size_t row = first; row < end; row += TRPO_TILE_ROWS) {
        const size_t count = end - row < TRPO_TILE_ROWS ? end - row : TRPO_TILE_ROWS;
        F(mlp_values)(plan, job->packed, count, job->normalized + row * inputs, tile);
        uint8_t finite[TRPO_TILE_ROWS];
        for (size_t i = 0; i < count; i++) finite[i] = (uint8_t)F(row_finite)(layout, outputs + i * padded);
        F(joint_resolve)(layout, F(row_mask)(layout, job->masks, row), count, outputs, padded);
        for (size_t i = row; i < row + count; i++) {
            F(act_row)(actor, outputs + (i - row) * padded, job->inverse_std, job->log_normalizer, job->first_row, i,
                       job->actions, job->log_probs);
            if (!finite[i - row] || !isfinite(((const REAL *)job->log_probs)[i])) {
                job->bad_action[task] = i;
                return;
            }
            F(environment_row)(actor, job->actions, i, job->env_actions, job->env_double);
        }
    }
}

static trpo_act_outcome F(act)(const trpo_actor *actor, const void *packed, size_t rows, const void *observations,
                               int observations_double, const uint8_t *masks, uint32_t first_row, void *normalized,
                               void *actions, void *log_probs, void *env_actions, int env_double, void *scratch,
                               int threads, size_t *bad_row) {
    double inverse_std[TRPO_MAX_OUTPUTS];
    size_t bad_observation[TRPO_MAX_THREADS], bad_action[TRPO_MAX_THREADS];
    if (rows == 0) return TRPO_ACT_OK;
    const size_t tiles = (rows + TRPO_TILE_ROWS - 1) / TRPO_TILE_ROWS;
    const size_t each = (tiles + (size_t)threads - 1) / (size_t)threads;
    F(act_job_)
    job = {.actor = actor,
           .packed = packed,
           .observations = observations,
           .masks = masks,
           .normalized = normalized,
           .actions = actions,
           .log_probs = log_probs,
           .env_actions = env_actions,
           .scratch = scratch,
           .rows = rows,
           .tiles_each = each,
           .observations_double = observations_double,
           .env_double = env_double,
           .first_row = first_row,
           .inverse_std = inverse_std,
           .bad_observation = bad_observation,
           .bad_action = bad_action};
    const size_t log_std_items = trpo_log_std_items(&actor->layout);
    if (log_std_items) job.log_normalizer = F(gaussian_prepare)(log_std_items, actor->log_std, inverse_std);
    const int tasks = (int)((tiles + each - 1) / each);
    trpo_parallel(tasks, threads, F(act_task), &job);
    for (int task = 0; task < tasks; task++)
        if (job.bad_observation[task] != rows) {
            *bad_row = job.bad_observation[task];
            return TRPO_ACT_BAD_OBSERVATION;
        }
    for (int task = 0; task < tasks; task++)
        if (job.bad_action[task] != rows) {
            *bad_row = job.bad_action[task];
            return TRPO_ACT_BAD_ACTION;
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
    FOR_TILES(job->rows, job->blocks, block) {
        F(mlp_values)(plan, job->packed, count, job->x + row * plan->widths[0], tile);
        for (size_t i = 0; i < count; i++) memcpy(job->out + (row + i) * n, outputs + i * padded, n * sizeof(REAL));
    }
}

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
