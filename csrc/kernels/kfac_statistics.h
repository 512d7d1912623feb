/* Kronecker-factored preconditioning: where the factors lie, and their statistics over a bound batch. These, as the
 * inversions, are split by the problem's size alone, so nothing depends on the number of threads. */

enum { F(PIVOT_) = 16 }; /* rows that an inversion sweeps together */

static void F(kronecker_plan)(trpo_kronecker *plan) {
    plan->factor_items = plan->work_items = plan->invert_items = 0;
    plan->apply_operations = plan->invert_operations = 0;
    for (int l = 0; l < plan->layers; l++) {
        trpo_kronecker_layer *layer = &plan->layer[l];
        layer->input_size = layer->inputs + (layer->bias != TRPO_NO_BIAS);
        layer->input_pad = F(round_up)(layer->input_size);
        layer->output_pad = F(round_up)(layer->outputs);
        layer->A = plan->factor_items;
        layer->G = layer->A + layer->input_size * layer->input_pad;
        plan->factor_items = layer->G + layer->outputs * layer->output_pad;
        layer->work = plan->work_items;
        plan->work_items += 2 * layer->outputs * layer->input_pad;
        const size_t widest = layer->input_pad > layer->output_pad ? layer->input_pad : layer->output_pad;
        const size_t items = 3 * F(PIVOT_) * widest + widest;
        if (items > plan->invert_items) plan->invert_items = items;
        const double a = (double)layer->input_size, g = (double)layer->outputs;
        plan->apply_operations += a * g * (a + g);
        plan->invert_operations += (a * a * a + g * g * g) / 2;
    }
}

/* y[r][c] (+)= sum over rows of x[., r] x[., c] for r <= c < n, and what else falls in the panels. x: rows x padded. */
static void F(second_moment)(size_t rows, size_t n, size_t padded, const REAL *x, REAL *y, size_t ldy, int first) {
    for (size_t column = 0; column < padded; column += 2 * VLEN) {
        const size_t width = padded - column < 2 * VLEN ? padded - column : 2 * VLEN;
        const F(product_) p = {.row_stride = 1,
                               .k_stride = padded,
                               .k1 = rows,
                               .x1 = x,
                               .b1 = x + column,
                               .ldb = padded,
                               .y = y + column,
                               .ldy = ldy,
                               .epilogue = first ? F(STORE_) : F(ADD_)};
        F(multiply)(&p, column + width < n ? column + width : n, width);
    }
}

INLINE size_t F(sampled_row)(const trpo_kfac_sample *s, size_t i) { return s->rows ? (size_t)s->rows[i] : i; }

/* What was cached of the tile that a row belongs to, and where in it the row lies. */
INLINE const REAL *F(cached_tile)(const trpo_policy_batch *b, size_t *row) {
    const size_t tile = *row / TRPO_TILE_ROWS;
    *row %= TRPO_TILE_ROWS;
    return F(tile_place)(b, tile * TRPO_TILE_ROWS, 0);
}

/* Rows i, i + step ... of the network's inputs (l = 0) or of what is cached of hidden layer l at `columns`, the plan's of
 * activations or of derivatives, `count` of them, zero in the padding. */
static void F(gather_tile)(const trpo_kfac_sample *s, int l, const size_t *columns, size_t i, size_t step, size_t count,
                           REAL *tile) {
    const trpo_policy_batch *b = s->batch;
    const size_t padded = b->problem.network->padded[l], stride = l ? padded : b->problem.network->widths[0];
    for (size_t r = 0; r < count; r++, tile += padded) {
        size_t at = F(sampled_row)(s, i + r * step);
        const REAL *from = b->problem.observations;
        if (l) from = F(cached_tile)(b, &at) + TRPO_TILE_ROWS * columns[l];
        const REAL *row = from + at * stride;
        size_t c = 0;
        for (; c + VLEN <= stride; c += VLEN) F(store)(tile + c, F(load)(row + c));
        for (; c < stride; c++) tile[c] = row[c];
        for (; c < padded; c++) tile[c] = 0;
    }
}

/* d = M^(1/2) d for one row: M = R R' with R = diag(1 / sigma), diag(sqrt(p (1 - p))), or for each block of a categorical
 * diag(q) - p q', q = sqrt(p). */
static void F(fisher_root)(const trpo_action_layout *layout, const REAL *metric, const double *inverse_std, REAL *d) {
    if (layout->distribution == TRPO_GAUSSIAN) {
        for (size_t j = 0; j < layout->outputs; j++) d[j] *= (REAL)inverse_std[j];
        return;
    }
    for (size_t j = 0; j < layout->outputs; j++) d[j] *= F(square_root)(metric[j]);
    if (layout->distribution == TRPO_BERNOULLI) return;
    for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++]) {
        double inner = 0;
        for (size_t j = at; j < at + layout->sizes[k]; j++) inner += (double)d[j];
        for (size_t j = at; j < at + layout->sizes[k]; j++) d[j] = (REAL)((double)d[j] - (double)metric[j] * inner);
    }
}

NOINLINE void F(product_root)(const trpo_action_layout *layout, const REAL *metric, const double *inverse_std,
                              REAL *d) {
    FOR_PARTS(layout)
    F(fisher_root)(at.part, metric + at.output, inverse_std + at.log_std, d + at.output);
}

/* d = M^(1/2) e for random signs e: E[d d'] is the distribution's Fisher information M, as it is for the score of a sampled
 * action, with less variance and without drawing one. i: among those that may be sampled. */
static void F(signed_score)(const trpo_kfac_sample *s, size_t i, const double *inverse_std, REAL *d) {
    const trpo_policy_batch *b = s->batch;
    const size_t n = F(outputs)(b), padded = F(outputs_padded)(b);
    const uint32_t row = (uint32_t)(i / s->input_step);
    size_t at = F(sampled_row)(s, i);
    uint64_t bits[2];
    for (size_t j = 0; j < n; j++) {
        if (j % 128 == 0) trpo_random_bits(&s->key, row, (uint32_t)(j / 128), bits);
        d[j] = bits[j / 64 % 2] >> (j % 64) & 1 ? 1 : -1;
    }
    for (size_t j = n; j < padded; j++) d[j] = 0;
    const REAL *tile = F(cached_tile)(b, &at);
    const REAL *metric = F(tile_metric)(b, tile, at);
    if (b->problem.layout.distribution == TRPO_PRODUCT)
        F(product_root)(&b->problem.layout, metric, inverse_std, d);
    else
        F(fisher_root)(&b->problem.layout, metric, inverse_std, d);
}

/* Sums of a a' over a tile of every layer's inputs; row `inputs` of A gets the sums of a, whose bias is a 1. */
static void F(input_moments)(const trpo_kfac_sample *s, size_t i, size_t count, REAL *tile, REAL *sums, int first) {
    for (int l = 0; l < s->plan->layers; l++) {
        const trpo_kronecker_layer *layer = &s->plan->layer[l];
        const size_t padded = s->batch->problem.network->padded[l];
        F(gather_tile)(s, l, s->batch->problem.network->activation_column, i, s->input_step, count, tile);
        F(second_moment)(count, layer->inputs, padded, tile, sums + layer->A, layer->input_pad, first);
        REAL *totals = sums + layer->A + layer->inputs * layer->input_pad;
        for (size_t c = 0; c < padded; c += VLEN) {
            vreal total = first ? (vreal){0} : F(load)(totals + c);
            for (size_t r = 0; r < count; r++) total += F(load)(tile + r * padded + c);
            F(store)(totals + c, total);
        }
    }
}

/* Sums of d d' over a tile, from the outputs back to the first layer. scratch: three tile buffers of `buffer` items. */
static void F(score_moments)(const trpo_kfac_sample *s, const double *inverse_std, size_t i, size_t count,
                             size_t buffer, REAL *scratch, REAL *sums, int first) {
    const trpo_policy_batch *b = s->batch;
    const trpo_mlp *network = b->problem.network;
    REAL *d = scratch + buffer;
    for (size_t r = 0; r < count; r++)
        F(signed_score)(s, i + r * s->score_step, inverse_std, d + r * F(outputs_padded)(b));
    for (int l = network->layers - 1;; l--) {
        const trpo_kronecker_layer *layer = &s->plan->layer[l];
        F(second_moment)(count, layer->outputs, layer->output_pad, d, sums + layer->G, layer->output_pad, first);
        if (l == 0) break;
        F(gather_tile)(s, l, network->derivative_column, i, s->score_step, count, scratch);
        REAL *next = scratch + (d == scratch + buffer ? 2 : 1) * buffer;
        const F(product_) back = {.row_stride = network->padded[l + 1],
                                  .k_stride = 1,
                                  .k1 = network->widths[l + 1],
                                  .x1 = d,
                                  .b1 = (const REAL *)b->cache.backward + network->backward_weight[l],
                                  .y = next,
                                  .ldy = network->padded[l],
                                  .epilogue = F(TIMES_DERIVATIVE_),
                                  .activation = network->activation,
                                  .a = scratch};
        F(multiply)(&back, count, network->padded[l]);
        d = next;
    }
}

typedef struct {
    const trpo_kfac_sample *sample;
    const double *inverse_std;
    REAL *factors;
} F(kfac_job_);

INLINE size_t F(sample_count)(size_t count, size_t step) { return (count + step - 1) / step; }

static void F(kfac_block)(void *job_, int block, int thread) {
    const F(kfac_job_) *job = job_;
    const trpo_kfac_sample *s = job->sample;
    const size_t items = trpo_kfac_scratch_items(s->batch->problem.network);
    REAL *scratch = (REAL *)s->scratch + (size_t)thread * items;
    REAL *sums = (REAL *)s->sums + (size_t)block * s->plan->factor_items;
    const size_t inputs = F(sample_count)(s->count, s->input_step);
    const size_t first = F(block_start)(inputs, s->blocks, block), end = F(block_start)(inputs, s->blocks, block + 1);
    for (size_t i = first; i < end; i += TRPO_TILE_ROWS)
        F(input_moments)(s, i * s->input_step, end - i < TRPO_TILE_ROWS ? end - i : TRPO_TILE_ROWS, scratch, sums,
                         i == first);
    /* scores have no tiles to share with a full pass: equal parts, of which an early one may be empty */
    const size_t scores = F(sample_count)(s->count, s->score_step);
    const size_t from = scores * (size_t)block / (size_t)s->blocks;
    const size_t to = scores * ((size_t)block + 1) / (size_t)s->blocks;
    if (from == to) {
        for (int l = 0; l < s->plan->layers; l++)
            memset(sums + s->plan->layer[l].G, 0,
                   s->plan->layer[l].outputs * s->plan->layer[l].output_pad * sizeof(REAL));
    }
    for (size_t i = from; i < to; i += TRPO_TILE_ROWS)
        F(score_moments)(s, job->inverse_std, i * s->score_step, to - i < TRPO_TILE_ROWS ? to - i : TRPO_TILE_ROWS,
                         items / 3, scratch, sums, i == from);
}

/* Task 2 l: A of layer l; 2 l + 1: G. Sums of the blocks in order, in double, as a full symmetric mean. */
static void F(kfac_reduce)(void *job_, int task, int thread) {
    enum { CHUNK = 64 };
    (void)thread;
    const F(kfac_job_) *job = job_;
    const trpo_kfac_sample *s = job->sample;
    const trpo_kronecker_layer *layer = &s->plan->layer[task / 2];
    const int is_G = task % 2;
    const size_t n = is_G ? layer->outputs : layer->inputs, at = is_G ? layer->G : layer->A;
    const size_t ld = is_G ? layer->output_pad : layer->input_pad;
    const size_t count = F(sample_count)(s->count, is_G ? s->score_step : s->input_step);
    /* F is scaled by rows / total, and A x G with it */
    const double scale = (is_G ? (double)s->batch->problem.rows / s->batch->problem.total : 1.0) / (double)count;
    REAL *y = job->factors + at;
    for (size_t r = 0; r < n + !is_G; r++) {
        const size_t start = r < n ? r : 0; /* the last row of A holds the sums of the inputs */
        for (size_t c = start; c < n; c += CHUNK) {
            const size_t width = n - c < CHUNK ? n - c : CHUNK;
            double total[CHUNK] = {0};
            for (int block = 0; block < s->blocks; block++) {
                const REAL *partial = (const REAL *)s->sums + (size_t)block * s->plan->factor_items + at + r * ld + c;
                for (size_t j = 0; j < width; j++) total[j] += (double)partial[j];
            }
            for (size_t j = 0; j < width; j++) y[r * ld + c + j] = (REAL)(scale * total[j]);
        }
        for (size_t c = start; c < n; c++) y[c * ld + r] = y[r * ld + c];
    }
    if (!is_G) y[n * ld + n] = 1;
}

static void F(kfac_statistics)(const trpo_kfac_sample *s, void *factors) {
    double inverse_std[TRPO_MAX_OUTPUTS];
    const F(kfac_job_) job = {.sample = s, .inverse_std = inverse_std, .factors = factors};
    const size_t log_std_items = F(log_std_items)(s->batch);
    if (log_std_items) F(gaussian_prepare)(log_std_items, s->batch->problem.parameters, inverse_std);
    trpo_parallel(s->blocks, s->threads, F(kfac_block), (void *)&job);
    trpo_parallel(2 * s->plan->layers, s->threads, F(kfac_reduce), (void *)&job);
}
