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
    return b->distribution == TRPO_GAUSSIAN ? F(outputs)(b) : 0;
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

static void F(bind_block)(void *job_, int block, int thread) {
    (void)thread;
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b);
    FOR_TILES(b, block) {
        F(mlp_forward)(b->network, b->forward, count, F(tile_input)(b, row), b->activations, b->rows, row);
        for (size_t i = row; i < row + count; i++) {
            REAL *output = F(output_row)(b, i), log_prob;
            if (b->distribution == TRPO_GAUSSIAN) {
                log_prob = F(gaussian_log_prob)(n, output, (const REAL *)b->actions + i * n, job->inverse_std,
                                                job->log_normalizer);
            } else {
                REAL *p = (REAL *)b->probabilities + i * padded;
                F(log_softmax)(n, output);
                for (size_t j = 0; j < padded; j++) p[j] = j < n ? (REAL)exp((double)output[j]) : 0;
                log_prob = output[((const int64_t *)b->actions)[i]];
            }
            REAL *log_probs = b->log_probs;
            log_probs[i] = b->behaviour ? ((const REAL *)b->behaviour)[i] : log_prob;
            ((REAL *)b->ratios)[i] = (REAL)exp((double)log_prob - (double)log_probs[i]);
        }
    }
}

static void F(policy_bind)(const trpo_policy_batch *b) {
    double inverse_std[TRPO_MAX_OUTPUTS];
    F(batch_job_) job = {.batch = b, .inverse_std = inverse_std};
    const REAL *network = (const REAL *)b->parameters + F(log_std_items)(b);
    F(mlp_pack_forward)(b->network, network, b->forward);
    F(mlp_pack_backward)(b->network, network, b->backward);
    if (b->distribution == TRPO_GAUSSIAN)
        job.log_normalizer = F(gaussian_prepare)(F(outputs)(b), b->parameters, inverse_std);
    trpo_parallel(b->blocks, b->threads, F(bind_block), &job);
}

/* d log pi / d output, weighted by ratio * advantage / total, and the same for log_std into the block's totals. */
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
        for (size_t i = 0; i < count; i++) {
            const double weight = (double)((const REAL *)b->ratios)[row + i] *
                                  (double)((const REAL *)b->advantages)[row + i] / (double)b->total;
            REAL *di = d + i * padded;
            for (size_t j = n; j < padded; j++) di[j] = 0;
            if (b->distribution == TRPO_GAUSSIAN) {
                const REAL *mean = F(output_row)(b, row + i), *action = (const REAL *)b->actions + (row + i) * n;
                for (size_t j = 0; j < n; j++) {
                    const double z = ((double)action[j] - (double)mean[j]) * job->inverse_std[j];
                    di[j] = (REAL)(weight * z * job->inverse_std[j]);
                    log_std_sums[j] += weight * (z * z - 1);
                }
            } else {
                const REAL *p = (const REAL *)b->probabilities + (row + i) * padded;
                for (size_t j = 0; j < n; j++) di[j] = (REAL)(-weight * (double)p[j]);
                const int64_t action = ((const int64_t *)b->actions)[row + i];
                di[action] = (REAL)(weight * (1.0 - (double)p[action]));
            }
        }
        F(mlp_vjp)(plan, b->backward, count, F(tile_input)(b, row), b->activations, b->rows, row, d, scratch, sums,
                   first);
        first = 0;
    }
}

/* out: gradient of the surrogate, all parameters. */
static void F(policy_gradient)(const trpo_policy_batch *b, void *out_) {
    REAL *out = out_;
    double inverse_std[TRPO_MAX_OUTPUTS];
    const size_t n = F(outputs)(b), log_std_items = F(log_std_items)(b);
    F(batch_job_) job = {.batch = b, .inverse_std = inverse_std};
    if (log_std_items) F(gaussian_prepare)(n, b->parameters, inverse_std);
    trpo_parallel(b->blocks, b->threads, F(gradient_block), &job);
    F(mlp_reduce)(b->network, b->blocks, b->sums, out + log_std_items);
    for (size_t j = 0; j < log_std_items; j++) {
        double sum = 0;
        for (int block = 0; block < b->blocks; block++) sum += b->totals[(size_t)block * (2 + n) + j];
        out[j] = (REAL)sum;
    }
}

/* d = M t / total for a tile's output tangents t, in place; the padding stays zero. */
INLINE void F(output_fisher)(const F(batch_job_) * job, size_t row, size_t count, REAL *t) {
    const trpo_policy_batch *b = job->batch;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b);
    if (b->distribution == TRPO_GAUSSIAN) {
        for (size_t i = 0; i < count; i++)
            for (size_t c = 0; c < padded; c += VLEN)
                F(store)(t + i * padded + c, F(load)(t + i * padded + c) * F(load)(job->precision + c));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const REAL *p = (const REAL *)b->probabilities + (row + i) * padded;
        REAL *ti = t + i * padded;
        double inner = 0;
        for (size_t j = 0; j < n; j++) inner += (double)p[j] * (double)ti[j];
        for (size_t j = 0; j < n; j++) ti[j] = (REAL)((double)p[j] * ((double)ti[j] - inner) / (double)b->total);
    }
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
            precision[j] =
                j < n ? (REAL)(exp(-2 * (double)((const REAL *)b->parameters)[j]) / (double)b->total) : (REAL)0;
    F(mlp_pack_forward)(b->network, v + log_std_items, b->trial);
    trpo_parallel(b->blocks, b->threads, F(fisher_block), &job);
    F(mlp_reduce)(b->network, b->blocks, b->sums, out + log_std_items);
    const double scale = 2.0 * (double)b->rows / (double)b->total;
    for (size_t j = 0; j < log_std_items; j++) out[j] = (REAL)(scale * (double)v[j]);
}

static void F(evaluate_block)(void *job_, int block, int thread) {
    const F(batch_job_) *job = job_;
    const trpo_policy_batch *b = job->batch;
    const trpo_mlp *plan = b->network;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b);
    REAL *tile = F(thread_scratch)(b, thread) + plan->tile_activations;
    const REAL *outputs = tile + TRPO_TILE_ROWS * plan->activation_column[plan->layers];
    double improvement = 0, kl = 0;
    FOR_TILES(b, block) {
        F(mlp_forward)(plan, b->trial, count, F(tile_input)(b, row), tile, TRPO_TILE_ROWS, 0);
        for (size_t i = 0; i < count; i++) {
            const REAL *old = F(output_row)(b, row + i);
            REAL *output = (REAL *)outputs + i * padded;
            double log_prob;
            if (b->distribution == TRPO_GAUSSIAN) {
                log_prob = (double)F(gaussian_log_prob)(n, output, (const REAL *)b->actions + (row + i) * n,
                                                        job->trial_inverse, job->log_normalizer);
                const double *inverse = job->direction == TRPO_KL_NEW_OLD ? job->inverse_std : job->trial_inverse;
                double squares = 0;
                for (size_t j = 0; j < n; j++) {
                    const double z = ((double)output[j] - (double)old[j]) * inverse[j];
                    squares += z * z;
                }
                kl += 0.5 * squares;
            } else {
                F(log_softmax)(n, output);
                log_prob = (double)output[((const int64_t *)b->actions)[row + i]];
                kl += job->direction == TRPO_KL_NEW_OLD ? F(categorical_kl)(n, output, old)
                                                        : F(categorical_kl)(n, old, output);
            }
            improvement += (double)((const REAL *)b->advantages)[row + i] *
                           expm1(log_prob - (double)((const REAL *)b->log_probs)[row + i]);
        }
    }
    b->totals[(size_t)block * (2 + n)] = improvement;
    b->totals[(size_t)block * (2 + n) + 1] = kl;
}

/* Mean improvement of the surrogate over theta_old and mean KL at trial parameters (all of them; not modified). */
static void F(policy_evaluate)(const trpo_policy_batch *b, const void *parameters_, trpo_kl_direction direction,
                               double *improvement, double *kl) {
    const REAL *parameters = parameters_;
    double inverse_std[TRPO_MAX_OUTPUTS], trial_inverse[TRPO_MAX_OUTPUTS];
    const size_t n = F(outputs)(b), log_std_items = F(log_std_items)(b);
    F(batch_job_)
    job = {.batch = b, .inverse_std = inverse_std, .trial_inverse = trial_inverse, .direction = direction};
    double log_std_kl = 0;
    if (log_std_items) {
        const REAL *old = b->parameters;
        F(gaussian_prepare)(n, old, inverse_std);
        job.log_normalizer = F(gaussian_prepare)(n, parameters, trial_inverse);
        for (size_t j = 0; j < n; j++) {
            const double change = 2 * ((double)parameters[j] - (double)old[j]);
            log_std_kl += 0.5 * expm1_minus(direction == TRPO_KL_NEW_OLD ? change : -change);
        }
    }
    F(mlp_pack_forward)(b->network, parameters + log_std_items, b->trial);
    trpo_parallel(b->blocks, b->threads, F(evaluate_block), &job);
    *improvement = *kl = 0;
    for (int block = 0; block < b->blocks; block++) {
        *improvement += b->totals[(size_t)block * (2 + n)];
        *kl += b->totals[(size_t)block * (2 + n) + 1];
    }
    *improvement /= (double)b->total;
    *kl = (*kl + log_std_kl * (double)b->rows) / (double)b->total;
}

/* Mean entropy at theta_old, in nats. */
static double F(policy_entropy)(const trpo_policy_batch *b) {
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b);
    double sum = 0;
    if (b->distribution == TRPO_GAUSSIAN) {
        for (size_t j = 0; j < n; j++) sum += (double)((const REAL *)b->parameters)[j];
        return sum + 1.41893853320467274178 * (double)n; /* (1 + log(2 pi)) / 2 */
    }
    for (size_t i = 0; i < b->rows; i++) {
        const REAL *log_p = F(output_row)(b, i), *p = (const REAL *)b->probabilities + i * padded;
        for (size_t j = 0; j < n; j++)
            if (p[j] > 0) sum -= (double)p[j] * (double)log_p[j];
    }
    return sum / (double)b->rows;
}
