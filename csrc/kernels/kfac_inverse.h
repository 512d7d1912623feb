/* Kronecker-factored preconditioning: the diagonal, and damped inverses of the factors. */

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
 * of damping I (of I without damping). */
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
