/* Bound batches: theta_old's forward pass, the surrogate's gradient, Fisher products, trial steps; contracts are in
 * trpo/kernels.h. Each function splits the batch in trpo_block_count blocks of whole tiles; a block's tiles are worked in
 * order by one thread. */

typedef struct {
    const trpo_policy_batch *batch;
    const double *inverse_std;   /* log_std_items, of theta_old, as the next one */
    const double *trial_inverse; /* the same of the trial parameters */
    const REAL *precision;       /* padded[layers] items: log_std_items of 1 / (sigma^2 total), zero behind them */
    double log_normalizer;       /* of the parameters whose log-probabilities are computed; 0 without log_std */
    trpo_kl_direction direction;
} F(batch_job_);

INLINE size_t F(outputs)(const trpo_policy_batch *b) {
    const trpo_mlp *network = b->problem.network;
    return network->widths[network->layers];
}
INLINE size_t F(outputs_padded)(const trpo_policy_batch *b) {
    const trpo_mlp *network = b->problem.network;
    return network->padded[network->layers];
}
INLINE size_t F(log_std_items)(const trpo_policy_batch *b) { return trpo_log_std_items(&b->problem.layout); }

/* First row of block i; block i ends where block i + 1 starts. */
INLINE size_t F(block_start)(size_t rows, int blocks, int i) {
    const size_t tiles = (rows + TRPO_TILE_ROWS - 1) / TRPO_TILE_ROWS;
    const size_t row = tiles * (size_t)i / (size_t)blocks * TRPO_TILE_ROWS;
    return row < rows ? row : rows;
}

/* `row`, `count`: first row and number of rows of each tile of a block, which ends at `end`. */
#define FOR_TILES(rows, blocks, block)                                                                                 \
    for (size_t row = F(block_start)(rows, blocks, block), end = F(block_start)(rows, blocks, (block) + 1), count;     \
         row < end && (count = end - row < TRPO_TILE_ROWS ? end - row : TRPO_TILE_ROWS); row += count)

INLINE const REAL *F(tile_input)(const trpo_policy_batch *b, size_t row) {
    return (const REAL *)b->problem.observations + row * b->problem.network->widths[0];
}
INLINE REAL *F(thread_scratch)(const trpo_policy_batch *b, int thread) {
    return (REAL *)b->work.scratch + (size_t)thread * b->problem.network->scratch_items;
}
/* Output and metric of row i of a tile of activations. */
INLINE REAL *F(tile_output)(const trpo_policy_batch *b, const REAL *tile, size_t i) {
    const trpo_mlp *network = b->problem.network;
    return (REAL *)tile + TRPO_TILE_ROWS * network->activation_column[network->layers] + i * F(outputs_padded)(b);
}
INLINE REAL *F(tile_metric)(const trpo_policy_batch *b, const REAL *tile, size_t i) {
    return (REAL *)tile + TRPO_TILE_ROWS * b->problem.network->activation_items + i * F(outputs_padded)(b);
}
/* Where the activations at theta_old of the tile that starts at `row` go: the cache, or the thread's scratch. */
INLINE REAL *F(tile_place)(const trpo_policy_batch *b, size_t row, int thread) {
    const size_t tile = row / TRPO_TILE_ROWS;
    if (tile < b->cache.tiles)
        return (REAL *)b->cache.activations +
               tile * trpo_tile_items(b->problem.network, b->problem.layout.distribution);
    return F(thread_scratch)(b, thread) + b->problem.network->tile_activations;
}

/* theta_old's forward pass of a tile. finite: TRPO_TILE_ROWS items, OUT, whether the network's outputs are, or NULL. Never
 * inlined, so that a pass done again gives the same bits. */
NOINLINE const REAL *F(pass_tile)(const trpo_policy_batch *b, size_t row, size_t count, int thread, uint8_t *finite) {
    const trpo_action_layout *layout = &b->problem.layout;
    REAL *tile = F(tile_place)(b, row, thread);
    F(mlp_forward)(b->problem.network, b->cache.forward, count, F(tile_input)(b, row), tile);
    for (size_t i = 0; finite && i < count; i++) finite[i] = (uint8_t)F(row_finite)(layout, F(tile_output)(b, tile, i));
    F(joint_resolve)(layout, F(row_mask)(layout, b->problem.masks, row), count, F(tile_output)(b, tile, 0),
                     F(outputs_padded)(b));
    for (size_t i = 0; layout->distribution != TRPO_GAUSSIAN && i < count; i++) {
        REAL *metric = F(tile_metric)(b, tile, i);
        F(joint_metric)(layout, F(tile_output)(b, tile, i), metric);
        for (size_t j = F(outputs)(b); j < F(outputs_padded)(b); j++) metric[j] = 0;
    }
    return tile;
}

/* Activations at theta_old of the tile that starts at `row`, from the cache where they are kept. */
INLINE const REAL *F(old_tile)(const trpo_policy_batch *b, size_t row, size_t count, int thread) {
    if (row / TRPO_TILE_ROWS < b->cache.tiles) return F(tile_place)(b, row, thread);
    return F(pass_tile)(b, row, count, thread, NULL);
}

/* What the tile that starts at `row`, if it lies before `end`, will read. */
INLINE F(ahead_) F(tile_ahead)(const trpo_policy_batch *b, size_t row, size_t end) {
    F(ahead_) ahead = {{0}, {0}};
    if (row >= end) return ahead;
    const size_t rows = end - row < TRPO_TILE_ROWS ? end - row : TRPO_TILE_ROWS;
    ahead.next[0] = (const char *)F(tile_input)(b, row);
    ahead.end[0] = (const char *)F(tile_input)(b, row + rows);
    if (row / TRPO_TILE_ROWS < b->cache.tiles) {
        const REAL *tile = F(tile_place)(b, row, 0);
        ahead.next[1] = (const char *)tile;
        ahead.end[1] = (const char *)(tile + trpo_tile_items(b->problem.network, b->problem.layout.distribution));
    }
    return ahead;
}

static void F(bind_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const REAL *behaviour = b->problem.behaviour;
    double *log_probs = b->cache.log_probs;
    REAL *ratios = b->cache.ratios;
    uint8_t finite[TRPO_TILE_ROWS];
    double change[TRPO_TILE_ROWS];
    FOR_TILES(b->problem.rows, b->work.blocks, block) {
        const REAL *tile = F(pass_tile)(b, row, count, thread, finite);
        for (size_t i = row; i < row + count; i++) {
            const double log_prob = F(joint_log_prob)(&b->problem.layout, F(tile_output)(b, tile, i - row),
                                                      F(row_action)(&b->problem.layout, b->problem.actions, i),
                                                      job->inverse_std, job->log_normalizer);
            const REAL rounded = (REAL)log_prob, given = behaviour ? behaviour[i] : rounded;
            /* What a rollout wrote is theta_old's, rounded, where the bits say so: then this is not. */
            log_probs[i] = given == rounded ? log_prob : (double)given;
            change[i - row] = (double)rounded - (double)given;
        }
        exp_each(count, change);
        for (size_t i = 0; i < count; i++) ratios[row + i] = finite[i] ? (REAL)change[i] : (REAL)NAN;
    }
}

static void F(policy_bind)(const trpo_policy_batch *b) {
    double inverse_std[TRPO_MAX_OUTPUTS];
    F(batch_job_) job = {.batch = b, .inverse_std = inverse_std};
    const size_t log_std_items = F(log_std_items)(b);
    const REAL *network = (const REAL *)b->problem.parameters + log_std_items;
    F(mlp_pack_forward)(b->problem.network, network, b->cache.forward);
    F(mlp_pack_backward)(b->problem.network, network, b->cache.backward);
    if (log_std_items) job.log_normalizer = F(gaussian_prepare)(log_std_items, b->problem.parameters, inverse_std);
    trpo_parallel(b->work.blocks, b->work.threads, F(bind_block), &job);
}

/* d = gradient of row i's part of the objective with respect to its output, which is given with its metric; what log_std
 * gets is added to its sums. */
INLINE void F(gradient_row)(const F(batch_job_) * job, size_t i, const REAL *output, const REAL *metric, REAL *d,
                            double *log_std_sums) {
    const trpo_policy_batch *b = job->batch;
    const trpo_action_layout *layout = &b->problem.layout;
    const void *action = F(row_action)(layout, b->problem.actions, i);
    const double weight = (double)((const REAL *)b->cache.ratios)[i] *
                          (double)((const REAL *)b->problem.advantages)[i] / b->problem.total;
    F(joint_score)(layout, output, metric, action, job->inverse_std, weight, d);
    F(joint_log_std_score)(layout, output, action, job->inverse_std, weight, log_std_sums);
    if (b->problem.entropy_coefficient != 0)
        F(joint_entropy_score)(layout, output, metric, b->problem.entropy_coefficient / b->problem.total, d);
    for (size_t j = F(outputs)(b); j < F(outputs_padded)(b); j++) d[j] = 0;
}

static void F(gradient_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->problem.network;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b), buffer = plan->tile_activations / 4;
    REAL *scratch = F(thread_scratch)(b, thread), *d = scratch + 2 * buffer;
    REAL *sums = (REAL *)b->work.sums + (size_t)block * plan->sum_items;
    double *log_std_sums = b->work.totals + (size_t)block * (2 + n);
    for (size_t j = 0; j < n; j++) log_std_sums[j] = 0;
    int first = 1;
    FOR_TILES(b->problem.rows, b->work.blocks, block) {
        const REAL *tile = F(old_tile)(b, row, count, thread);
        F(ahead_) ahead = F(tile_ahead)(b, row + count, end);
        for (size_t i = 0; i < count; i++)
            F(gradient_row)(job, row + i, F(tile_output)(b, tile, i), F(tile_metric)(b, tile, i), d + i * padded,
                            log_std_sums);
        F(mlp_vjp)(plan, b->cache.backward, count, F(tile_input)(b, row), tile, d, scratch, sums, first, &ahead);
        first = 0;
    }
}

static void F(policy_gradient)(const trpo_policy_batch *b, void *out_) {
    REAL *out = out_;
    double inverse_std[TRPO_MAX_OUTPUTS];
    const size_t n = F(outputs)(b), log_std_items = F(log_std_items)(b);
    F(batch_job_) job = {.batch = b, .inverse_std = inverse_std};
    if (log_std_items) F(gaussian_prepare)(log_std_items, b->problem.parameters, inverse_std);
    trpo_parallel(b->work.blocks, b->work.threads, F(gradient_block), &job);
    F(mlp_reduce)(b->problem.network, b->work.blocks, b->work.sums, out + log_std_items);
    for (size_t j = 0; j < log_std_items; j++) {
        double sum =
            b->problem.entropy_coefficient * (double)b->problem.rows / b->problem.total; /* d entropy / d log_std = 1 */
        for (int block = 0; block < b->work.blocks; block++) sum += b->work.totals[(size_t)block * (2 + n) + j];
        out[j] = (REAL)sum;
    }
}

/* d = M t / total for rows of output tangents t, in place; the padding stays zero. metric: of the rows, but for a Gaussian. */
INLINE void F(output_fisher)(const F(batch_job_) * job, const REAL *metric, size_t count, REAL *t) {
    const trpo_policy_batch *b = job->batch;
    const size_t padded = F(outputs_padded)(b);
    if (b->problem.layout.distribution == TRPO_GAUSSIAN) {
        for (size_t i = 0; i < count; i++)
            for (size_t c = 0; c < padded; c += VLEN)
                F(store)(t + i * padded + c, F(load)(t + i * padded + c) * F(load)(job->precision + c));
        return;
    }
    if (b->problem.layout.distribution == TRPO_PRODUCT)
        F(product_fisher)(&b->problem.layout, count, metric, job->precision, 1 / b->problem.total, t, padded);
    else
        F(fisher_rows)(&b->problem.layout, count, metric, 1 / b->problem.total, t, padded);
}

/* Where the output Jacobians of the tile that starts at `row` are; NULL where there are none. */
INLINE REAL *F(tile_jacobians)(const trpo_policy_batch *b, size_t row) {
    if (!b->cache.jacobians) return NULL;
    return (REAL *)b->cache.jacobians + row / TRPO_TILE_ROWS * trpo_tile_jacobian_items(b->problem.network);
}

static void F(jacobian_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const REAL *network = (const REAL *)b->problem.parameters + F(log_std_items)(b);
    FOR_TILES(b->problem.rows, b->work.blocks, block)
    F(mlp_jacobians)(b->problem.network, network, b->cache.backward, count, F(tile_place)(b, row, thread),
                     F(thread_scratch)(b, thread), F(tile_jacobians)(b, row));
}

static void F(policy_jacobians)(const trpo_policy_batch *b) {
    F(batch_job_) job = {.batch = b};
    trpo_parallel(b->work.blocks, b->work.threads, F(jacobian_block), &job);
}

/* The contractions of a tile, a few rows at a time: J v, M J v / total and the cotangents below, while the rows' Jacobians
 * are near. tangents: of jacobian_tangents. */
static void F(contract_tile)(const F(batch_job_) * job, size_t row, size_t count, const REAL *tile, REAL *tangents) {
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->problem.network;
    const REAL *jacobians = F(tile_jacobians)(b, row);
    REAL *t = F(tile_output)(b, tangents, 0);
    for (size_t r = 0, most = F(contracted_rows)(plan), rows; r < count; r += rows) {
        rows = count - r < most ? count - r : most;
        for (int l = 1; l < plan->layers - 1; l++) {
            const F(contraction_) p = F(contraction_of)(plan, jacobians, tile, tangents, l, r, rows);
            F(contract)(&p);
        }
        F(output_fisher)(job, F(tile_metric)(b, tile, r), rows, t + r * F(outputs_padded)(b));
        for (int l = 1; l < plan->layers - 1; l++) {
            const F(contraction_) p = F(contraction_of)(plan, jacobians, tile, tangents, l, r, rows);
            F(spread_outputs)(&p);
        }
    }
}

static void F(fisher_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->problem.network;
    const size_t buffer = plan->tile_activations / 4;
    REAL *scratch = F(thread_scratch)(b, thread);
    REAL *sums = (REAL *)b->work.sums + (size_t)block * plan->sum_items;
    int first = 1;
    FOR_TILES(b->problem.rows, b->work.blocks, block) {
        const REAL *x = F(tile_input)(b, row), *tile = F(old_tile)(b, row, count, thread);
        F(ahead_) ahead = F(tile_ahead)(b, row + count, end);
        if (b->cache.jacobians) {
            REAL *tangents = scratch + plan->tile_activations; /* free, as all activations are in the cache */
            F(jacobian_tangents)(plan, b->cache.forward, b->work.trial, count, x, tile, tangents, &ahead);
            F(contract_tile)(job, row, count, tile, tangents);
            F(jacobian_sums)(plan, b->cache.backward, count, x, tile, tangents, sums, first, &ahead);
        } else {
            REAL *t = F(mlp_jvp)(plan, b->cache.forward, b->work.trial, count, x, tile, scratch, &ahead);
            F(output_fisher)(job, F(tile_metric)(b, tile, 0), count, t);
            F(mlp_vjp)(plan, b->cache.backward, count, x, tile, t, scratch + 2 * buffer, sums, first, &ahead);
        }
        first = 0;
    }
}

/* Where there is a log_std: what output_fisher multiplies means with, zero behind it. */
INLINE void F(output_precision)(const trpo_policy_batch *b, REAL *precision) {
    const size_t n = F(log_std_items)(b);
    if (n)
        for (size_t j = 0; j < F(outputs_padded)(b); j++)
            precision[j] =
                j < n ? (REAL)(scalar_exp(-2 * (double)((const REAL *)b->problem.parameters)[j]) / b->problem.total)
                      : (REAL)0;
}

/* out = F v of what the blocks of a product left. */
INLINE void F(reduce_product)(const trpo_policy_batch *b, const REAL *v, REAL *out) {
    const size_t log_std_items = F(log_std_items)(b);
    F(mlp_reduce)(b->problem.network, b->work.blocks, b->work.sums, out + log_std_items);
    const double scale = 2.0 * (double)b->problem.rows / b->problem.total;
    for (size_t j = 0; j < log_std_items; j++) out[j] = (REAL)(scale * (double)v[j]);
}

static void F(policy_fisher)(const trpo_policy_batch *b, const void *v_, void *out_) {
    const REAL *v = v_;
    REAL precision[TRPO_MAX_OUTPUTS + TRPO_VECTOR_BYTES / sizeof(REAL)];
    F(batch_job_) job = {.batch = b, .precision = precision};
    F(output_precision)(b, precision);
    F(mlp_pack_forward)(b->problem.network, v + F(log_std_items)(b), b->work.trial);
    trpo_parallel(b->work.blocks, b->work.threads, F(fisher_block), &job);
    F(reduce_product)(b, v, out_);
}

/* Of a row's trial output, resolved, against theta_old, but for log_std's; apart, for its stack. */
NOINLINE double F(entropy_change)(const trpo_action_layout *layout, const REAL *output, const REAL *old,
                                  const REAL *old_metric) {
    REAL metric[F(ROW_)];
    F(joint_metric)(layout, output, metric);
    return F(joint_entropy)(layout, output, metric) - F(joint_entropy)(layout, old, old_metric);
}

static void F(evaluate_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->problem.network;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b);
    const trpo_action_layout *layout = &b->problem.layout;
    const int has_metric = layout->distribution != TRPO_GAUSSIAN;
    REAL *scratch = F(thread_scratch)(b, thread), *tile = scratch + plan->tile_activations;
    REAL *old = scratch, *old_metric = scratch + plan->tile_activations / 4, *outputs = F(tile_output)(b, tile, 0);
    double improvement = 0, kl = 0, change[TRPO_TILE_ROWS];
    FOR_TILES(b->problem.rows, b->work.blocks, block) {
        /* copied, because the trial's pass overwrites what was not cached */
        const REAL *kept = F(old_tile)(b, row, count, thread);
        memcpy(old, F(tile_output)(b, kept, 0), count * padded * sizeof(REAL));
        if (has_metric) memcpy(old_metric, F(tile_metric)(b, kept, 0), count * padded * sizeof(REAL));
        F(mlp_values)(plan, b->work.trial, count, F(tile_input)(b, row), tile);
        for (size_t i = 0; i < count; i++)
            if (!F(row_finite)(layout, outputs + i * padded)) improvement = NAN;
        F(joint_resolve)(layout, F(row_mask)(layout, b->problem.masks, row), count, outputs, padded);
        for (size_t i = 0; i < count; i++) {
            const double log_prob =
                F(joint_log_prob)(layout, outputs + i * padded, F(row_action)(layout, b->problem.actions, row + i),
                                  job->trial_inverse, job->log_normalizer);
            change[i] = log_prob - b->cache.log_probs[row + i];
        }
        expm1_each(count, change);
        for (size_t i = 0; i < count; i++)
            improvement += (double)((const REAL *)b->problem.advantages)[row + i] * change[i];
        kl += job->direction == TRPO_KL_NEW_OLD ? F(joint_kl)(layout, count, outputs, old, padded, job->inverse_std)
                                                : F(joint_kl)(layout, count, old, outputs, padded, job->trial_inverse);
        if (b->problem.entropy_coefficient != 0 && has_metric)
            for (size_t i = 0; i < count; i++)
                improvement +=
                    b->problem.entropy_coefficient *
                    F(entropy_change)(layout, outputs + i * padded, old + i * padded, old_metric + i * padded);
    }
    b->work.totals[(size_t)block * (2 + n)] = improvement;
    b->work.totals[(size_t)block * (2 + n) + 1] = kl;
}

static void F(policy_evaluate)(const trpo_policy_batch *b, const void *parameters_, trpo_kl_direction direction,
                               double *improvement, double *kl) {
    const REAL *parameters = parameters_;
    double inverse_std[TRPO_MAX_OUTPUTS], trial_inverse[TRPO_MAX_OUTPUTS];
    const size_t n = F(outputs)(b), log_std_items = F(log_std_items)(b);
    F(batch_job_)
    job = {.batch = b, .inverse_std = inverse_std, .trial_inverse = trial_inverse, .direction = direction};
    double log_std_kl = 0, log_std_change = 0;
    if (log_std_items) {
        const REAL *old = b->problem.parameters;
        F(gaussian_prepare)(log_std_items, old, inverse_std);
        job.log_normalizer = F(gaussian_prepare)(log_std_items, parameters, trial_inverse);
        for (size_t j = 0; j < log_std_items; j++) {
            const double change = (double)parameters[j] - (double)old[j];
            log_std_kl += 0.5 * expm1_minus(direction == TRPO_KL_NEW_OLD ? 2 * change : -2 * change);
            log_std_change += change;
        }
    }
    F(mlp_pack_forward)(b->problem.network, parameters + log_std_items, b->work.trial);
    trpo_parallel(b->work.blocks, b->work.threads, F(evaluate_block), &job);
    *improvement = *kl = 0;
    for (int block = 0; block < b->work.blocks; block++) {
        *improvement += b->work.totals[(size_t)block * (2 + n)];
        *kl += b->work.totals[(size_t)block * (2 + n) + 1];
    }
    if (b->problem.entropy_coefficient != 0)
        *improvement += b->problem.entropy_coefficient * log_std_change * (double)b->problem.rows;
    *improvement /= b->problem.total;
    *kl = (*kl + log_std_kl * (double)b->problem.rows) / b->problem.total;
}

/* Sum of the entropies at theta_old of a block's rows, but for log_std's. */
static void F(entropy_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    double sum = 0;
    FOR_TILES(b->problem.rows, b->work.blocks, block) {
        const REAL *tile = F(old_tile)(b, row, count, thread);
        for (size_t i = 0; i < count; i++)
            sum += F(joint_entropy)(&b->problem.layout, F(tile_output)(b, tile, i), F(tile_metric)(b, tile, i));
    }
    b->work.totals[(size_t)block * (2 + F(outputs)(b))] = sum;
}

static double F(policy_entropy)(const trpo_policy_batch *b) {
    const size_t n = F(outputs)(b), log_std_items = F(log_std_items)(b);
    double sum = 0, of_log_std = 0;
    for (size_t j = 0; j < log_std_items; j++) of_log_std += (double)((const REAL *)b->problem.parameters)[j];
    of_log_std += 1.41893853320467274178 * (double)log_std_items; /* (1 + log(2 pi)) / 2 */
    if (b->problem.layout.distribution == TRPO_GAUSSIAN) return of_log_std;
    F(batch_job_) job = {.batch = b};
    trpo_parallel(b->work.blocks, b->work.threads, F(entropy_block), &job);
    for (int block = 0; block < b->work.blocks; block++) sum += b->work.totals[(size_t)block * (2 + n)];
    return sum / (double)b->problem.rows + of_log_std;
}
