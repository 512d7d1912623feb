/* Kronecker-factored preconditioning: products with a vector. A row of one is the same whatever block it falls in, so
 * nothing depends on the number of threads. */

enum { F(CHUNK_) = 48 }; /* rows of a layer that a task multiplies */

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
