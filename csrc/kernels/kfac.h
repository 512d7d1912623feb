/* Kronecker-factored preconditioning. Statistics and inversions are split by the problem's size alone, and a row of a
 * product is the same whatever block it falls in, so nothing depends on the number of threads. */

enum {
    F(PIVOT_) = 16, /* rows that an inversion sweeps together */
    F(CHUNK_) = 48  /* rows of a layer that a task multiplies */
};

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

/* ---- statistics ---- */

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

/* Rows i, i + step ... of the network's inputs (l = 0) or cached activations, `count` of them, zero in the padding. */
static void F(gather_tile)(const trpo_kfac_sample *s, int l, size_t i, size_t step, size_t count, REAL *tile) {
    const trpo_policy_batch *b = s->batch;
    const size_t padded = b->problem.network->padded[l], stride = l ? padded : b->problem.network->widths[0];
    for (size_t r = 0; r < count; r++, tile += padded) {
        size_t at = F(sampled_row)(s, i + r * step);
        const REAL *from = b->problem.observations;
        if (l) from = F(cached_tile)(b, &at) + TRPO_TILE_ROWS * b->problem.network->activation_column[l];
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
    F(fisher_root)(&b->problem.layout, F(tile_metric)(b, tile, at), inverse_std, d);
}

/* Sums of a a' over a tile of every layer's inputs; row `inputs` of A gets the sums of a, whose bias is a 1. */
static void F(input_moments)(const trpo_kfac_sample *s, size_t i, size_t count, REAL *tile, REAL *sums, int first) {
    for (int l = 0; l < s->plan->layers; l++) {
        const trpo_kronecker_layer *layer = &s->plan->layer[l];
        const size_t padded = s->batch->problem.network->padded[l];
        F(gather_tile)(s, l, i, s->input_step, count, tile);
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
        F(gather_tile)(s, l, i, s->score_step, count, scratch);
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

/* factors: plan->factor_items, OUT; the padding is not written. */
static void F(kfac_statistics)(const trpo_kfac_sample *s, void *factors) {
    double inverse_std[TRPO_MAX_OUTPUTS];
    const F(kfac_job_) job = {.sample = s, .inverse_std = inverse_std, .factors = factors};
    if (s->batch->problem.layout.distribution == TRPO_GAUSSIAN)
        F(gaussian_prepare)(F(outputs)(s->batch), s->batch->problem.parameters, inverse_std);
    trpo_parallel(s->blocks, s->threads, F(kfac_block), (void *)&job);
    trpo_parallel(2 * s->plan->layers, s->threads, F(kfac_reduce), (void *)&job);
}

/* ---- inversion ---- */

/* The inverse of a symmetric positive definite matrix, in place: n x n, leading dimension ld (a multiple of VLEN), both
 * triangles; the padding becomes zero. Symmetric sweeps (Goodnight 1979) over pivots k, all of them in the end:
 *   a_ij <- a_ij - a_ik a_kj / a_kk,  a_kj <- a_kj / a_kk,  a_kk <- -1 / a_kk
 * leave -A^-1 and symmetry at every step, so that the upper triangle is enough: n^3 / 2 multiply-adds. The pivots are those
 * of Cholesky's factorization, hence positive, and as accurate. PIVOT_ of them are swept in a panel of their own rows first;
 * all other rows then follow in GEMM blocks. Returns 0, with A spoiled, where A is not positive definite to working
 * precision. work: invert_items. */
static int F(invert)(size_t n, size_t ld, REAL *A, REAL *work) {
    const REAL epsilon = sizeof(REAL) == 4 ? (REAL)FLT_EPSILON : (REAL)DBL_EPSILON;
    REAL *panel = work, *pivots = panel + F(PIVOT_) * ld, *scaled = pivots + F(PIVOT_) * ld,
         *least = scaled + F(PIVOT_) * ld;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = n; j < ld; j++) A[i * ld + j] = 0;
        least[i] = A[i * ld + i] * epsilon;
    }
    for (size_t start = 0; start < n; start += F(PIVOT_)) {
        const size_t m = n - start < F(PIVOT_) ? n - start : F(PIVOT_);
        for (size_t k = 0; k < m; k++) {
            for (size_t j = 0; j < start + k; j++) panel[k * ld + j] = A[j * ld + start + k];
            memcpy(panel + k * ld + start + k, A + (start + k) * ld + start + k, (ld - start - k) * sizeof(REAL));
        }
        for (size_t k = 0; k < m; k++) {
            const REAL d = panel[k * ld + start + k];
            REAL *pivot = pivots + k * ld, *step = scaled + k * ld;
            if (!(d > least[start + k]) || !isfinite(d)) return 0;
            const REAL inverse = 1 / d;
            memcpy(pivot, panel + k * ld, ld * sizeof(REAL));
            for (size_t j = 0; j < ld; j++) step[j] = -inverse * pivot[j];
            for (size_t i = 0; i < m; i++) {
                REAL *row = panel + i * ld;
                const REAL factor = row[start + k];
                if (i == k) {
                    for (size_t j = 0; j < ld; j++) row[j] = -step[j];
                } else {
                    for (size_t j = 0; j < ld; j++) row[j] += factor * step[j];
                }
                row[start + k] = i == k ? -inverse : factor * inverse;
            }
        }
        for (size_t column = 0; column < ld; column += 2 * VLEN) {
            const size_t width = ld - column < 2 * VLEN ? ld - column : 2 * VLEN;
            const F(product_) update = {.row_stride = 1,
                                        .k_stride = ld,
                                        .k1 = m,
                                        .x1 = pivots,
                                        .b1 = scaled + column,
                                        .ldb = ld,
                                        .y = A + column,
                                        .ldy = ld,
                                        .epilogue = F(ADD_)};
            F(multiply)(&update, column + width < n ? column + width : n, width);
        }
        for (size_t k = 0; k < m; k++) {
            for (size_t j = 0; j < start; j++) A[j * ld + start + k] = panel[k * ld + j];
            memcpy(A + (start + k) * ld + start, panel + k * ld + start, (n - start) * sizeof(REAL));
        }
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++) A[j * ld + i] = A[i * ld + j] = -A[i * ld + j];
    return 1;
}

typedef struct {
    const trpo_kronecker *plan;
    REAL *factors, *work;
    double shift[2 * TRPO_MAX_LAYERS]; /* added to the diagonals of A and G */
    int failed[2 * TRPO_MAX_LAYERS];
} F(invert_job_);

/* Task 2 l: A of layer l; 2 l + 1: G. */
static void F(invert_task)(void *job_, int task, int thread) {
    F(invert_job_) *job = job_;
    const trpo_kronecker_layer *layer = &job->plan->layer[task / 2];
    const size_t n = task % 2 ? layer->outputs : layer->input_size;
    const size_t ld = task % 2 ? layer->output_pad : layer->input_pad;
    REAL *matrix = job->factors + (task % 2 ? layer->G : layer->A);
    for (size_t i = 0; i < n; i++) matrix[i * ld + i] = (REAL)((double)matrix[i * ld + i] + job->shift[task]);
    job->failed[task] = !F(invert)(n, ld, matrix, job->work + (size_t)thread * job->plan->invert_items);
}

INLINE double F(mean_diagonal)(size_t n, size_t ld, const REAL *matrix) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)matrix[i * ld + i];
    return sum / (double)n;
}

/* Both factors of every layer become the inverses of A + pi s I and G + s / pi I, s^2 = share * damping, pi^2 = mean
 * diagonal of A / mean diagonal of G (Martens & Grosse 2015, sec. 6.3), in place. No shift is less than
 * sqrt(epsilon) times the mean diagonal, so that a singular statistic has an inverse even without damping; where one factor
 * vanishes, or is so small that its inverse might overflow, so does the layer's Fisher information, and the inverse is that
 * of damping I (of I without damping).
 * work: threads * invert_items. Returns -1, or 2 l (A) or 2 l + 1 (G) of the first matrix that has no inverse: one that is
 * not finite, or not positive semi-definite. */
static int F(kronecker_invert)(const trpo_kronecker *plan, void *factors, double damping, double share, void *work,
                               int threads) {
    F(invert_job_) job = {.plan = plan, .factors = factors, .work = work};
    const double least = sqrt(sizeof(REAL) == 4 ? (double)FLT_EPSILON : DBL_EPSILON);
    const double vanishing = sizeof(REAL) == 4 ? (double)FLT_MIN / (double)FLT_EPSILON : DBL_MIN / DBL_EPSILON;
    for (int l = 0; l < plan->layers; l++) {
        const trpo_kronecker_layer *layer = &plan->layer[l];
        REAL *A = job.factors + layer->A, *G = job.factors + layer->G;
        const double a = F(mean_diagonal)(layer->input_size, layer->input_pad, A);
        const double g = F(mean_diagonal)(layer->outputs, layer->output_pad, G);
        if (!isfinite(a) || !isfinite(g)) return 2 * l + !!isfinite(a);
        if ((a >= 0 && a < vanishing) || (g >= 0 && g < vanishing)) {
            memset(A, 0, layer->input_size * layer->input_pad * sizeof(REAL));
            memset(G, 0, layer->outputs * layer->output_pad * sizeof(REAL));
            job.shift[2 * l] = 1;
            job.shift[2 * l + 1] = damping > 0 ? damping : 1;
            continue;
        }
        const double root = sqrt(share * damping / (a * g)); /* s, in units of the block's mean diagonal */
        job.shift[2 * l] = a * (root > least ? root : least);
        job.shift[2 * l + 1] = g * (root > least ? root : least);
    }
    trpo_parallel(2 * plan->layers, threads, F(invert_task), &job);
    for (int task = 0; task < 2 * plan->layers; task++)
        if (job.failed[task]) return task;
    return -1;
}

/* out[weight of layer l] = A_ii G_oo: the diagonal of the blocks. out: size items; those of no layer are left alone. */
static void F(kronecker_diagonal)(const trpo_kronecker *plan, const void *factors_, void *out_) {
    const REAL *factors = factors_;
    REAL *out = out_;
    for (int l = 0; l < plan->layers; l++) {
        const trpo_kronecker_layer *layer = &plan->layer[l];
        for (size_t o = 0; o < layer->outputs; o++) {
            const REAL g = factors[layer->G + o * layer->output_pad + o];
            const REAL *A = factors + layer->A;
            for (size_t i = 0; i < layer->inputs; i++)
                out[layer->weight + o * layer->inputs + i] = g * A[i * layer->input_pad + i];
            if (layer->bias != TRPO_NO_BIAS)
                out[layer->bias + o] = g * A[layer->inputs * layer->input_pad + layer->inputs];
        }
    }
}

/* x = 1 / (x + shift), or 1 where that has no finite inverse: n items, in place. Returns 0, with x spoiled, where an x is
 * negative or not finite. */
static int F(shifted_reciprocal)(size_t n, double shift_, void *x_) {
    const REAL shift = (REAL)shift_;
    REAL *x = x_;
    int fine = 1;
    for (size_t i = 0; i < n; i++) {
        fine &= x[i] >= 0 && isfinite(x[i]);
        const REAL inverse = 1 / (x[i] + shift);
        x[i] = isfinite(inverse) ? inverse : 1;
    }
    return fine;
}

/* ---- products ---- */

typedef struct {
    const trpo_kronecker *plan;
    const REAL *factors, *v;
    REAL *work, *out;
} F(apply_job_);

/* The rows of a layer that task i works on. */
INLINE const trpo_kronecker_layer *F(task_rows)(const trpo_kronecker *plan, int i, size_t *row, size_t *rows) {
    const trpo_kronecker_layer *layer = plan->layer;
    size_t chunk = (size_t)i;
    for (;; layer++) {
        const size_t chunks = (layer->outputs + F(CHUNK_) - 1) / F(CHUNK_);
        if (chunk < chunks) break;
        chunk -= chunks;
    }
    *row = chunk * F(CHUNK_);
    *rows = layer->outputs - *row < F(CHUNK_) ? layer->outputs - *row : F(CHUNK_);
    return layer;
}

/* U = V A^-1, V the layer's part of v with the bias as last column. */
static void F(apply_input_factor)(void *job_, int task, int thread) {
    (void)thread;
    const F(apply_job_) *job = job_;
    size_t row, rows;
    const trpo_kronecker_layer *layer = F(task_rows)(job->plan, task, &row, &rows);
    const size_t pad = layer->input_pad;
    REAL *V = job->work + layer->work, *U = V + layer->outputs * pad;
    for (size_t r = row; r < row + rows; r++) {
        memcpy(V + r * pad, job->v + layer->weight + r * layer->inputs, layer->inputs * sizeof(REAL));
        if (layer->bias != TRPO_NO_BIAS) V[r * pad + layer->inputs] = job->v[layer->bias + r];
    }
    const F(product_) p = {.row_stride = pad,
                           .k_stride = 1,
                           .k1 = layer->input_size,
                           .x1 = V + row * pad,
                           .b1 = job->factors + layer->A,
                           .ldb = pad,
                           .y = U + row * pad,
                           .ldy = pad};
    F(multiply)(&p, rows, pad);
}

/* G^-1 U, over V's place, and from there into out. */
static void F(apply_output_factor)(void *job_, int task, int thread) {
    (void)thread;
    const F(apply_job_) *job = job_;
    size_t row, rows;
    const trpo_kronecker_layer *layer = F(task_rows)(job->plan, task, &row, &rows);
    const size_t pad = layer->input_pad;
    REAL *V = job->work + layer->work;
    const F(product_) p = {.row_stride = layer->output_pad,
                           .k_stride = 1,
                           .k1 = layer->outputs,
                           .x1 = job->factors + layer->G + row * layer->output_pad,
                           .b1 = V + layer->outputs * pad,
                           .ldb = pad,
                           .y = V + row * pad,
                           .ldy = pad};
    F(multiply)(&p, rows, pad);
    for (size_t r = row; r < row + rows; r++) {
        memcpy(job->out + layer->weight + r * layer->inputs, V + r * pad, layer->inputs * sizeof(REAL));
        if (layer->bias != TRPO_NO_BIAS) job->out[layer->bias + r] = V[r * pad + layer->inputs];
    }
}

/* out = M v: G^-1 V A^-1 for every layer, diagonal * v for all other parameters. diagonal: size items; v, out: size items,
 * v not modified. factors: inverses, as kronecker_invert leaves them. work: work_items. */
static void F(kronecker_apply)(const trpo_kronecker *plan, const void *factors, const void *diagonal_, const void *v_,
                               void *out_, void *work, int threads) {
    const REAL *diagonal = diagonal_, *v = v_;
    REAL *out = out_;
    const F(apply_job_) job = {.plan = plan, .factors = factors, .v = v, .work = work, .out = out};
    int tasks = 0;
    for (int l = 0; l < plan->layers; l++) tasks += (int)((plan->layer[l].outputs + F(CHUNK_) - 1) / F(CHUNK_));
    for (size_t i = 0; i < plan->size; i++) out[i] = diagonal[i] * v[i];
    trpo_parallel(tasks, threads, F(apply_input_factor), (void *)&job);
    trpo_parallel(tasks, threads, F(apply_output_factor), (void *)&job);
}
