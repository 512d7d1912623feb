/* Bound batches: theta_old's forward pass, the surrogate's gradient, Fisher products, trial steps. Each function splits
 * the batch in trpo_block_count blocks of whole tiles; a block's tiles are worked in order by one thread. */

typedef struct {
    const trpo_policy_batch *batch;
    const double *inverse_std;   /* widths[layers] items, of theta_old; Gaussian only, as the next three */
    const double *trial_inverse; /* the same of the trial parameters */
    const REAL *precision;       /* padded[layers] items: 1 / (sigma^2 total), zero in the padding */
    double log_normalizer;       /* of the parameters whose log-probabilities are computed */
    trpo_kl_direction direction;
} F(batch_job_);

INLINE size_t F(outputs)(const trpo_policy_batch *b) { return b->network->widths[b->network->layers]; }
INLINE size_t F(outputs_padded)(const trpo_policy_batch *b) { return b->network->padded[b->network->layers]; }
INLINE size_t F(log_std_items)(const trpo_policy_batch *b) {
    return b->layout.distribution == TRPO_GAUSSIAN ? F(outputs)(b) : 0;
}

/* First row of block i; block i ends where block i + 1 starts. */
INLINE size_t F(block_start)(size_t rows, int blocks, int i) {
    const size_t tiles = (rows + TRPO_TILE_ROWS - 1) / TRPO_TILE_ROWS;
    const size_t row = tiles * (size_t)i / (size_t)blocks * TRPO_TILE_ROWS;
    return row < rows ? row : rows;
}

#define FOR_TILES(batch, block)                                                                                        \
    for (size_t row = F(block_start)((batch)->rows, (batch)->blocks, block),                                           \
                end = F(block_start)((batch)->rows, (batch)->blocks, (block) + 1), count;                              \
         row < end && (count = end - row < TRPO_TILE_ROWS ? end - row : TRPO_TILE_ROWS); row += count)

INLINE const REAL *F(tile_input)(const trpo_policy_batch *b, size_t row) {
    return (const REAL *)b->observations + row * b->network->widths[0];
}
INLINE REAL *F(thread_scratch)(const trpo_policy_batch *b, int thread) {
    return (REAL *)b->scratch + (size_t)thread * b->network->scratch_items;
}
/* Row `row` of the cached output. */
INLINE REAL *F(output_row)(const trpo_policy_batch *b, size_t row) {
    return (REAL *)b->activations + b->rows * b->network->activation_column[b->network->layers] +
           row * F(outputs_padded)(b);
}
INLINE REAL *F(metric_row)(const trpo_policy_batch *b, size_t row) {
    return (REAL *)b->metric + row * F(outputs_padded)(b);
}

/* What the cached output of one row says of the action taken there, and the metric. */
INLINE void F(bind_row)(const F(batch_job_) * job, size_t i) {
    const trpo_policy_batch *b = job->batch;
    const trpo_action_layout *layout = &b->layout;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b);
    REAL *output = F(output_row)(b, i), *log_probs = b->log_probs;
    const int finite = F(row_finite)(layout, output);
    F(row_resolve)(layout, F(row_mask)(layout, b->masks, i), output);
    if (layout->distribution != TRPO_GAUSSIAN) {
        REAL *metric = F(metric_row)(b, i);
        F(row_metric)(layout, output, metric);
        for (size_t j = n; j < padded; j++) metric[j] = 0;
    }
    const REAL log_prob =
        F(row_log_prob)(layout, output, F(row_action)(layout, b->actions, i), job->inverse_std, job->log_normalizer);
    log_probs[i] = b->behaviour ? ((const REAL *)b->behaviour)[i] : log_prob;
    ((REAL *)b->ratios)[i] = finite ? (REAL)exp((double)log_prob - (double)log_probs[i]) : (REAL)NAN;
}

static void F(bind_block)(void *job_, int block, int thread) {
    (void)thread;
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    FOR_TILES(b, block) {
        F(mlp_forward)(b->network, b->forward, count, F(tile_input)(b, row), b->activations, b->rows, row);
        for (size_t i = row; i < row + count; i++) F(bind_row)(job, i);
    }
}

static void F(policy_bind)(const trpo_policy_batch *b) {
    double inverse_std[TRPO_MAX_OUTPUTS];
    F(batch_job_) job = {.batch = b, .inverse_std = inverse_std};
    const REAL *network = (const REAL *)b->parameters + F(log_std_items)(b);
    F(mlp_pack_forward)(b->network, network, b->forward);
    F(mlp_pack_backward)(b->network, network, b->backward);
    if (b->layout.distribution == TRPO_GAUSSIAN)
        job.log_normalizer = F(gaussian_prepare)(F(outputs)(b), b->parameters, inverse_std);
    trpo_parallel(b->blocks, b->threads, F(bind_block), &job);
}

/* d = gradient of row i's part of the objective with respect to its output; what log_std gets is added to its sums. */
INLINE void F(gradient_row)(const F(batch_job_) * job, size_t i, REAL *d, double *log_std_sums) {
    const trpo_policy_batch *b = job->batch;
    const trpo_action_layout *layout = &b->layout;
    const REAL *output = F(output_row)(b, i), *metric = F(metric_row)(b, i);
    const void *action = F(row_action)(layout, b->actions, i);
    const double weight = (double)((const REAL *)b->ratios)[i] * (double)((const REAL *)b->advantages)[i] / b->total;
    F(row_score)(layout, output, metric, action, job->inverse_std, weight, d);
    if (layout->distribution == TRPO_GAUSSIAN)
        F(row_log_std_score)(layout, output, action, job->inverse_std, weight, log_std_sums);
    else if (b->entropy_coefficient != 0)
        F(row_entropy_score)(layout, output, metric, b->entropy_coefficient / b->total, d);
    for (size_t j = F(outputs)(b); j < F(outputs_padded)(b); j++) d[j] = 0;
}

static void F(gradient_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->network;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b), buffer = plan->tile_activations / 4;
    REAL *scratch = F(thread_scratch)(b, thread), *d = scratch + 2 * buffer;
    REAL *sums = (REAL *)b->sums + (size_t)block * plan->sum_items;
    double *log_std_sums = b->totals + (size_t)block * (2 + n);
    for (size_t j = 0; j < n; j++) log_std_sums[j] = 0;
    int first = 1;
    FOR_TILES(b, block) {
        for (size_t i = 0; i < count; i++) F(gradient_row)(job, row + i, d + i * padded, log_std_sums);
        F(mlp_vjp)(plan, b->backward, count, F(tile_input)(b, row), b->activations, b->rows, row, d, scratch, sums,
                   first);
        first = 0;
    }
}

/* out: gradient of the surrogate, and of the entropy where it counts; all parameters. */
static void F(policy_gradient)(const trpo_policy_batch *b, void *out_) {
    REAL *out = out_;
    double inverse_std[TRPO_MAX_OUTPUTS];
    const size_t n = F(outputs)(b), log_std_items = F(log_std_items)(b);
    F(batch_job_) job = {.batch = b, .inverse_std = inverse_std};
    if (log_std_items) F(gaussian_prepare)(n, b->parameters, inverse_std);
    trpo_parallel(b->blocks, b->threads, F(gradient_block), &job);
    F(mlp_reduce)(b->network, b->blocks, b->sums, out + log_std_items);
    for (size_t j = 0; j < log_std_items; j++) {
        double sum = b->entropy_coefficient * (double)b->rows / b->total; /* d entropy / d log_std = 1 */
        for (int block = 0; block < b->blocks; block++) sum += b->totals[(size_t)block * (2 + n) + j];
        out[j] = (REAL)sum;
    }
}

/* d = M t / total for a tile's output tangents t, in place; the padding stays zero. */
INLINE void F(output_fisher)(const F(batch_job_) * job, size_t row, size_t count, REAL *t) {
    const trpo_policy_batch *b = job->batch;
    const size_t padded = F(outputs_padded)(b);
    if (b->layout.distribution == TRPO_GAUSSIAN) {
        for (size_t i = 0; i < count; i++)
            for (size_t c = 0; c < padded; c += VLEN)
                F(store)(t + i * padded + c, F(load)(t + i * padded + c) * F(load)(job->precision + c));
        return;
    }
    for (size_t i = 0; i < count; i++) F(row_fisher)(&b->layout, F(metric_row)(b, row + i), b->total, t + i * padded);
}

static void F(fisher_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->network;
    const size_t buffer = plan->tile_activations / 4;
    REAL *scratch = F(thread_scratch)(b, thread);
    REAL *sums = (REAL *)b->sums + (size_t)block * plan->sum_items;
    int first = 1;
    FOR_TILES(b, block) {
        const REAL *x = F(tile_input)(b, row);
        REAL *t = F(mlp_jvp)(plan, b->forward, b->trial, count, x, b->activations, b->rows, row, scratch);
        F(output_fisher)(job, row, count, t);
        F(mlp_vjp)(plan, b->backward, count, x, b->activations, b->rows, row, t, scratch + 2 * buffer, sums, first);
        first = 0;
    }
}

/* out = F v at theta_old, undamped. v: not modified; may not be out. */
static void F(policy_fisher)(const trpo_policy_batch *b, const void *v_, void *out_) {
    const REAL *v = v_;
    REAL *out = out_;
    REAL precision[TRPO_MAX_OUTPUTS + TRPO_VECTOR_BYTES / sizeof(REAL)];
    const size_t n = F(outputs)(b), log_std_items = F(log_std_items)(b);
    F(batch_job_) job = {.batch = b, .precision = precision};
    if (log_std_items)
        for (size_t j = 0; j < F(outputs_padded)(b); j++)
            precision[j] = j < n ? (REAL)(exp(-2 * (double)((const REAL *)b->parameters)[j]) / b->total) : (REAL)0;
    F(mlp_pack_forward)(b->network, v + log_std_items, b->trial);
    trpo_parallel(b->blocks, b->threads, F(fisher_block), &job);
    F(mlp_reduce)(b->network, b->blocks, b->sums, out + log_std_items);
    const double scale = 2.0 * (double)b->rows / b->total;
    for (size_t j = 0; j < log_std_items; j++) out[j] = (REAL)(scale * (double)v[j]);
}

/* Of a row's trial output, resolved, against theta_old; apart, for its stack. Discrete only. */
NOINLINE double F(entropy_change)(const trpo_policy_batch *b, size_t i, const REAL *output) {
    REAL metric[TRPO_MAX_OUTPUTS];
    F(row_metric)(&b->layout, output, metric);
    return F(row_entropy)(&b->layout, output, metric) -
           F(row_entropy)(&b->layout, F(output_row)(b, i), F(metric_row)(b, i));
}

/* Adds what row i contributes at the trial parameters, whose output (not yet resolved) is given. */
INLINE void F(evaluate_row)(const F(batch_job_) * job, size_t i, REAL *output, double *improvement, double *kl) {
    const trpo_policy_batch *b = job->batch;
    const trpo_action_layout *layout = &b->layout;
    const REAL *old = F(output_row)(b, i);
    if (!F(row_finite)(layout, output)) *improvement = NAN;
    F(row_resolve)(layout, F(row_mask)(layout, b->masks, i), output);
    const double log_prob = (double)F(row_log_prob)(layout, output, F(row_action)(layout, b->actions, i),
                                                    job->trial_inverse, job->log_normalizer);
    *improvement +=
        (double)((const REAL *)b->advantages)[i] * expm1(log_prob - (double)((const REAL *)b->log_probs)[i]);
    *kl += job->direction == TRPO_KL_NEW_OLD ? F(row_kl)(layout, output, old, job->inverse_std)
                                             : F(row_kl)(layout, old, output, job->trial_inverse);
    if (b->entropy_coefficient != 0 && layout->distribution != TRPO_GAUSSIAN)
        *improvement += b->entropy_coefficient * F(entropy_change)(b, i, output);
}

static void F(evaluate_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->network;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b);
    REAL *tile = F(thread_scratch)(b, thread) + plan->tile_activations;
    REAL *outputs = tile + TRPO_TILE_ROWS * plan->activation_column[plan->layers];
    double improvement = 0, kl = 0;
    FOR_TILES(b, block) {
        F(mlp_forward)(plan, b->trial, count, F(tile_input)(b, row), tile, TRPO_TILE_ROWS, 0);
        for (size_t i = 0; i < count; i++) F(evaluate_row)(job, row + i, outputs + i * padded, &improvement, &kl);
    }
    b->totals[(size_t)block * (2 + n)] = improvement;
    b->totals[(size_t)block * (2 + n) + 1] = kl;
}

/* Mean improvement of the objective over theta_old and mean KL at trial parameters (all of them; not modified). */
static void F(policy_evaluate)(const trpo_policy_batch *b, const void *parameters_, trpo_kl_direction direction,
                               double *improvement, double *kl) {
    const REAL *parameters = parameters_;
    double inverse_std[TRPO_MAX_OUTPUTS], trial_inverse[TRPO_MAX_OUTPUTS];
    const size_t n = F(outputs)(b), log_std_items = F(log_std_items)(b);
    F(batch_job_)
    job = {.batch = b, .inverse_std = inverse_std, .trial_inverse = trial_inverse, .direction = direction};
    double log_std_kl = 0, log_std_change = 0;
    if (log_std_items) {
        const REAL *old = b->parameters;
        F(gaussian_prepare)(n, old, inverse_std);
        job.log_normalizer = F(gaussian_prepare)(n, parameters, trial_inverse);
        for (size_t j = 0; j < n; j++) {
            const double change = (double)parameters[j] - (double)old[j];
            log_std_kl += 0.5 * expm1_minus(direction == TRPO_KL_NEW_OLD ? 2 * change : -2 * change);
            log_std_change += change;
        }
    }
    F(mlp_pack_forward)(b->network, parameters + log_std_items, b->trial);
    trpo_parallel(b->blocks, b->threads, F(evaluate_block), &job);
    *improvement = *kl = 0;
    for (int block = 0; block < b->blocks; block++) {
        *improvement += b->totals[(size_t)block * (2 + n)];
        *kl += b->totals[(size_t)block * (2 + n) + 1];
    }
    if (b->entropy_coefficient != 0) *improvement += b->entropy_coefficient * log_std_change * (double)b->rows;
    *improvement /= b->total;
    *kl = (*kl + log_std_kl * (double)b->rows) / b->total;
}

/* Mean entropy at theta_old, in nats. */
static double F(policy_entropy)(const trpo_policy_batch *b) {
    const size_t n = F(outputs)(b);
    double sum = 0;
    if (b->layout.distribution == TRPO_GAUSSIAN) {
        for (size_t j = 0; j < n; j++) sum += (double)((const REAL *)b->parameters)[j];
        return sum + 1.41893853320467274178 * (double)n; /* (1 + log(2 pi)) / 2 */
    }
    for (size_t i = 0; i < b->rows; i++) sum += F(row_entropy)(&b->layout, F(output_row)(b, i), F(metric_row)(b, i));
    return sum / (double)b->rows;
}
