/* Steps of Adam on the mean squared error of a value network; trpo/critic.h says where everything lies meanwhile. */

typedef struct {
    const trpo_critic_fit *fit;
    const int64_t *order;
    size_t count;
    int threads, blocks, parts;
    int partial;                   /* sums that the blocks have: one each, or the same */
    int taken[2][TRPO_FIT_BLOCKS]; /* blocks, and parts */
    int packed[TRPO_FIT_BLOCKS];   /* whether the thread has its backward pack */
    REAL beta1, beta2, rest1, rest2, rate, root, epsilon;
    INT lost_parameter, lost_moment; /* nonzero where one came out that is not finite */
} F(minibatch_);

/* The number of a thing to do, of `count`, each of which is done once. Threads begin at numbers of their own, the same ones
 * in every step: what a thing is made of is in the cache of the core that did it before. */
INLINE int F(take)(int *taken, int count, int thread, int threads) {
    int i = thread * count / threads;
    while (__atomic_exchange_n(&taken[i], 1, __ATOMIC_RELAXED)) i = (i + 1) % count;
    return i;
}

/* Sum over the lanes of v, by halves. */
INLINE REAL F(lanes_sum)(vreal v) {
    REAL lane[TRPO_VECTOR_BYTES / sizeof(REAL)];
    F(store)(lane, v);
    for (size_t half = VLEN / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0];
}

/* Values and their errors of a tile whose last hidden activations (or, without any, inputs) are a, rows x columns; returns
 * the sum of the squared errors.  w: columns weights, then the bias.  slopes: what the derivatives at a are
 * computed from.
 *   sums (+)= the gradient of w.  below: the gradient at the pre-activations, rows x columns, or NULL.
 * In one pass, as a product with one column would leave the arithmetic waiting for memory.  activation: a literal where
 * that is worth it. */
INLINE double F(critic_output)(const trpo_activation activation, const F(minibatch_) * job, const int64_t *order,
                               size_t rows, size_t columns, const REAL *a, const REAL *slopes, const REAL *w,
                               REAL *below, REAL *sums, int first) {
    const REAL *returns = job->fit->returns;
    const double scale = 2 / (double)job->count;
    double squares = 0;
    REAL d[TRPO_FIT_TILE_ROWS] = {0};
    for (size_t r = 0; r < rows; r++) {
        vreal sum = {0};
        for (size_t c = 0; c < columns; c += VLEN) sum += F(load)(a + r * columns + c) * F(load)(w + c);
        const double error = (double)(F(lanes_sum)(sum) + w[columns]) - (double)returns[order[r]];
        squares += error * error;
        d[r] = (REAL)(scale * error);
    }
    for (size_t c = 0; c < columns; c += VLEN) {
        const vreal weight = F(load)(w + c);
        vreal chain[4] = {{0}}; /* an addition need not wait for the one before */
        for (size_t r = 0; r < rows; r += 4)
            for (size_t i = 0; i < 4 && r + i < rows; i++) {
                const size_t at = (r + i) * columns + c;
                const vreal error = F(splat)(d[r + i]);
                chain[i] += error * F(load)(a + at);
                if (below) F(store)(below + at, error * weight * F(derivative)(activation, F(load)(slopes + at)));
            }
        const vreal sum = (chain[0] + chain[1]) + (chain[2] + chain[3]);
        F(store)(sums + c, first ? sum : F(load)(sums + c) + sum);
    }
    vreal total = {0};
    for (size_t r = 0; r < rows; r += VLEN) total += F(load)(d + r);
    const REAL bias = F(lanes_sum)(total);
    sums[columns] = first ? bias : sums[columns] + bias;
    return squares;
}

/* A thread's parts of fit->scratch. */
typedef struct {
    REAL *scratch, *tile; /* a network's */
    REAL *x;              /* rows of observations, padded */
    REAL *backward;       /* the backward pack */
} F(fit_scratch_);

INLINE F(fit_scratch_) F(fit_scratch_of)(const trpo_critic_fit *fit, int thread) {
    const trpo_mlp *plan = fit->network;
    REAL *scratch = (REAL *)fit->scratch + (size_t)thread * trpo_critic_scratch_items(plan);
    F(fit_scratch_)
    parts = {.scratch = scratch, .tile = scratch + plan->tile_activations, .x = scratch + plan->scratch_items};
    parts.backward = parts.x + TRPO_FIT_TILE_ROWS * plan->padded[0];
    return parts;
}

/* Where the gradient at layer l's pre-activations lies: the two buffers take turns. */
INLINE REAL *F(cotangent)(const trpo_mlp *plan, REAL *scratch, int l) {
    return scratch + (size_t)(l % 2) * (plan->tile_activations / 4);
}

/* The backward pack of the parameters as the fit has them. */
static void F(critic_pack)(const trpo_critic_fit *fit, int thread) {
    const trpo_mlp *plan = fit->network;
    REAL *packed = F(fit_scratch_of)(fit, thread).backward;
    for (int l = 1; l < plan->layers - 1; l++) {
        const size_t in = plan->widths[l], in_padded = plan->padded[l];
        const size_t out = plan->widths[l + 1], out_padded = plan->padded[l + 1];
        const REAL *forward = (const REAL *)fit->state[0] + plan->forward_weight[l];
        REAL *backward = packed + plan->backward_weight[l];
        for (size_t to = 0, to_width; to < in_padded; to += to_width) {
            to_width = F(panel_vectors)((in_padded - to) / VLEN) * VLEN;
            for (size_t column = 0, width; column < out_padded; column += width) {
                width = F(panel_vectors)((out_padded - column) / VLEN) * VLEN;
                F(transpose)(in - to < to_width ? in - to : to_width, out - column < width ? out - column : width,
                             forward + column * in + to * width, width, 1, backward + to * out + column * to_width, 1,
                             to_width);
            }
        }
    }
}

/* Rows of the observations that `order` names, next to each other; the padding of x stays as it is. */
static void F(gather_rows)(const trpo_critic_fit *fit, size_t rows, const int64_t *order, REAL *x) {
    const size_t inputs = fit->network->widths[0];
    for (size_t i = 0; i < rows; i++, x += fit->network->padded[0]) {
        const REAL *from = (const REAL *)fit->observations + (size_t)order[i] * inputs;
        size_t c = 0;
        for (; c + VLEN <= inputs; c += VLEN) F(store)(x + c, F(load)(from + c));
        for (; c < inputs; c++) x[c] = from[c];
    }
}

/* Activations of all hidden layers, into tile. x: rows x padded[0]. */
static void F(hidden_forward)(const trpo_critic_fit *fit, int thread, size_t rows, const REAL *x, REAL *tile) {
    const trpo_mlp *plan = fit->network;
    (void)thread;
    const REAL *theta = fit->state[0];
    for (int l = 0; l < plan->layers - 1; l++) {
        const size_t columns = plan->padded[l + 1];
        REAL *y = tile + TRPO_TILE_ROWS * plan->activation_column[l + 1];
        const F(product_) p = {.row_stride = plan->padded[l],
                               .k_stride = 1,
                               .k1 = plan->widths[l],
                               .x1 = x,
                               .b1 = theta + plan->forward_weight[l],
                               .bias = theta + plan->forward_bias[l],
                               .y = y,
                               .ldy = columns};
        F(multiply)(&p, rows, columns);
        F(activate_layer)(plan, l + 1, rows, tile, 1);
        x = y;
    }
}

/* sums (+)= the gradient of all hidden layers of the tile that hidden_forward has seen. d: the gradient at the last
 * pre-activations, rows x padded[layers - 1], where `cotangent` says. */
static void F(hidden_backward)(const trpo_critic_fit *fit, int thread, size_t rows, const REAL *d, REAL *sums,
                               int first) {
    const trpo_mlp *plan = fit->network;
    const F(fit_scratch_) own = F(fit_scratch_of)(fit, thread);
    for (int l = plan->layers - 2; l >= 0; l--) {
        const size_t in = plan->widths[l], in_padded = plan->padded[l], out_padded = plan->padded[l + 1];
        const REAL *a = l ? own.tile + TRPO_TILE_ROWS * plan->activation_column[l] : own.x;
        for (size_t column = 0, width; column < out_padded; column += width) {
            width = F(panel_vectors)((out_padded - column) / VLEN) * VLEN;
            const F(product_) outer = {.row_stride = 1,
                                       .k_stride = in_padded,
                                       .k1 = rows,
                                       .x1 = a,
                                       .b1 = d + column,
                                       .ldb = out_padded,
                                       .y = sums + plan->forward_weight[l] + column * in,
                                       .ldy = width,
                                       .epilogue = first ? F(STORE_) : F(ADD_)};
            F(multiply)(&outer, in, width);
        }
        F(add_rows)(rows, out_padded, d, sums + plan->forward_bias[l], first);
        if (l == 0) break;
        REAL *next = F(cotangent)(plan, own.scratch, l);
        const F(product_) back = {.row_stride = out_padded,
                                  .k_stride = 1,
                                  .k1 = plan->widths[l + 1],
                                  .x1 = d,
                                  .b1 = own.backward + plan->backward_weight[l],
                                  .y = next,
                                  .ldy = in_padded,
                                  .epilogue = F(TIMES_DERIVATIVE_),
                                  .activation = plan->activation,
                                  .a = F(derivative_place)(plan, own.tile, l)};
        F(multiply)(&back, rows, in_padded);
        d = next;
    }
}

/* Gradient of one block of a minibatch. pack: whatever the two passes read of the parameters besides these themselves. All
 * three are literals, so that they are called as they are. */
INLINE void F(critic_block_by)(F(minibatch_) * job, int thread, void (*pack)(const trpo_critic_fit *fit, int thread),
                               void (*forward)(const trpo_critic_fit *fit, int thread, size_t rows, const REAL *x,
                                               REAL *tile),
                               void (*backward)(const trpo_critic_fit *fit, int thread, size_t rows, const REAL *d,
                                                REAL *sums, int first)) {
    const int block = F(take)(job->taken[0], job->blocks, thread, job->threads);
    const trpo_critic_fit *fit = job->fit;
    const trpo_mlp *plan = fit->network;
    const int last = plan->layers - 1;
    const size_t columns = plan->padded[last];
    const REAL *output = (const REAL *)fit->state[0] + plan->forward_weight[last];
    REAL *sums = (REAL *)fit->sums + (size_t)(block % job->partial) * trpo_critic_state_items(plan);
    REAL *output_sums = sums + plan->forward_weight[last];
    const F(fit_scratch_) own = F(fit_scratch_of)(fit, thread);
    REAL *a = last > 0 ? own.tile + TRPO_TILE_ROWS * plan->activation_column[last] : own.x;
    const REAL *slopes = last > 0 ? F(derivative_place)(plan, own.tile, last) : NULL;
    REAL *d = last > 0 ? F(cotangent)(plan, own.scratch, last) : NULL;
    const size_t tiles = (job->count + TRPO_FIT_TILE_ROWS - 1) / TRPO_FIT_TILE_ROWS;
    const size_t start = tiles * (size_t)block / (size_t)job->blocks * TRPO_FIT_TILE_ROWS;
    const size_t stop = tiles * (size_t)(block + 1) / (size_t)job->blocks * TRPO_FIT_TILE_ROWS;
    const size_t end = stop < job->count ? stop : job->count;
    double squares = 0;
    /* Each thread makes its own: to fetch it from where another core has written it takes as long, and another step. */
    if (!job->packed[thread]) pack(fit, thread);
    job->packed[thread] = 1;
    for (size_t row = start; row < end; row += TRPO_FIT_TILE_ROWS) {
        const size_t rows = end - row < TRPO_FIT_TILE_ROWS ? end - row : TRPO_FIT_TILE_ROWS;
        const int64_t *order = job->order + row;
        const int first = row == (job->partial > 1 ? start : 0);
        F(gather_rows)(fit, rows, order, own.x);
        forward(fit, thread, rows, own.x, own.tile);
        if (plan->activation == TRPO_TANH)
            squares += F(critic_output)(TRPO_TANH, job, order, rows, columns, a, slopes, output, d, output_sums, first);
        else
            squares +=
                F(critic_output)(plan->activation, job, order, rows, columns, a, slopes, output, d, output_sums, first);
        backward(fit, thread, rows, d, sums, first);
    }
    /* Where an activation of nothing is not zero, the padding has a sum. */
    for (size_t c = plan->widths[last]; c < columns; c++) output_sums[c] = 0;
    memset(output_sums + columns + 1, 0, (plan->padded[last + 1] - 1) * sizeof(REAL));
    fit->squares[block] = squares;
}

static void F(critic_block)(void *job, int task, int thread) {
    (void)task;
    F(critic_block_by)(job, thread, F(critic_pack), F(hidden_forward), F(hidden_backward));
}

/* One step of Adam (Kingma & Ba 2015) with torch's placing of epsilon for `count` items from `begin`. */
static void F(adam)(F(minibatch_) * job, size_t begin, size_t count) {
    enum { CHUNK = 256 };
    const trpo_critic_fit *fit = job->fit;
    const size_t items = trpo_critic_state_items(fit->network);
    const REAL b1 = job->beta1, b2 = job->beta2, c1 = job->rest1, c2 = job->rest2;
    const REAL rate = job->rate, root = job->root, epsilon = job->epsilon;
    INT lost_parameter = 0, lost_moment = 0;
    REAL g[CHUNK];
    for (size_t n; count > 0; begin += n, count -= n) {
        n = count < CHUNK ? count : CHUNK;
        const REAL *sums = (const REAL *)fit->sums + begin;
        REAL *restrict theta = (REAL *)fit->state[0] + begin, *restrict m = (REAL *)fit->state[1] + begin;
        REAL *restrict v = (REAL *)fit->state[2] + begin;
        memcpy(g, sums, n * sizeof(REAL));
        for (int i = 1; i < job->partial; i++) {
            sums += items;
            for (size_t j = 0; j < n; j++) g[j] += sums[j];
        }
        /* Of an integer the order of a reduction is the compiler's to choose: a sum of reals would make each item wait for
         * the one before. */
        for (size_t i = 0; i < n; i++) {
            m[i] = b1 * m[i] + c1 * g[i];
            v[i] = b2 * v[i] + c2 * g[i] * g[i];
            theta[i] -= rate * m[i] / (F(square_root)(v[i]) * root + epsilon);
            lost_parameter |= !(theta[i] - theta[i] == 0);
            lost_moment |= !(v[i] - v[i] == 0);
        }
    }
    __atomic_fetch_or(&job->lost_parameter, lost_parameter, __ATOMIC_RELAXED);
    __atomic_fetch_or(&job->lost_moment, lost_moment, __ATOMIC_RELAXED);
}

/* Adam for one part of every layer's rows of W'. */
static void F(critic_adam)(void *job_, int task, int thread) {
    F(minibatch_) *job = job_;
    const int part = F(take)(job->taken[1], job->parts, thread, job->threads);
    const trpo_mlp *plan = job->fit->network;
    const int last = plan->layers - 1;
    (void)task;
    for (int l = 0; l < last; l++) {
        const size_t in = plan->widths[l], columns = plan->padded[l + 1];
        const size_t first = in * (size_t)part / (size_t)job->parts, end = in * (size_t)(part + 1) / (size_t)job->parts;
        for (size_t column = 0, width; column < columns; column += width) {
            width = F(panel_vectors)((columns - column) / VLEN) * VLEN;
            F(adam)(job, plan->forward_weight[l] + column * in + first * width, (end - first) * width);
        }
        if (part == 0) F(adam)(job, plan->forward_bias[l], columns);
    }
    if (part == 0) F(adam)(job, plan->forward_weight[last], plan->padded[last] + plan->padded[last + 1]);
}

/* What AdamW (Loshchilov & Hutter 2019) does before a step of Adam. */
static void F(critic_decay)(const trpo_critic_fit *fit) {
    const size_t items = trpo_critic_state_items(fit->network);
    const REAL keep = (REAL)(1 - fit->learning_rate * fit->weight_decay);
    REAL *theta = (REAL *)fit->state[0];
    for (size_t i = 0; i < items; i++) theta[i] *= keep;
}

/* block: critic_block, or another that gives a minibatch's gradient. */
INLINE trpo_adam_outcome F(critic_step_by)(const trpo_critic_fit *fit, size_t count, const int64_t *order, int64_t step,
                                           double *squares, void (*block)(void *job, int task, int thread)) {
    const size_t parameters = fit->network->parameters;
    /* Below that, two sections take as long as the second thread gains. */
    const int threads = count * parameters < 200000 ? 1 : fit->threads;
    F(minibatch_)
    job = {.fit = fit,
           .order = order,
           .count = count,
           .threads = threads,
           .blocks = trpo_critic_blocks(count, parameters),
           .parts = threads,
           .beta1 = (REAL)fit->beta1,
           .beta2 = (REAL)fit->beta2,
           .rest1 = (REAL)(1 - fit->beta1),
           .rest2 = (REAL)(1 - fit->beta2),
           .rate = (REAL)(fit->learning_rate / -scalar_expm1((double)step * scalar_log(fit->beta1))),
           .root = (REAL)(1 / sqrt(-scalar_expm1((double)step * scalar_log(fit->beta2)))),
           /* the padding is 0 / epsilon */
           .epsilon = (REAL)fit->epsilon > 0 ? (REAL)fit->epsilon
                      : sizeof(REAL) == 4    ? (REAL)FLT_MIN
                                             : (REAL)DBL_MIN};
    /* One after the other, blocks of a tile each may add up as they go: that is the order in which Adam does it. */
    const int alone = threads == 1 && count <= (size_t)job.blocks * TRPO_FIT_TILE_ROWS;
    job.partial = alone ? 1 : job.blocks;
    trpo_parallel(job.blocks, threads, block, &job);
    *squares = 0;
    for (int i = 0; i < job.blocks; i++) *squares += fit->squares[i];
    if (fit->weight_decay != 0) F(critic_decay)(fit);
    trpo_parallel(job.parts, threads, F(critic_adam), &job);
    return job.lost_parameter ? TRPO_ADAM_PARAMETER : (job.lost_moment ? TRPO_ADAM_SECOND_MOMENT : TRPO_ADAM_FINITE);
}

static trpo_adam_outcome F(critic_step)(const trpo_critic_fit *fit, size_t count, const int64_t *order, int64_t step,
                                        double *squares) {
    return F(critic_step_by)(fit, count, order, step, squares, F(critic_block));
}

static void F(critic_load)(const trpo_critic_fit *fit, const void *parameters, const void *m, const void *v) {
    const trpo_mlp *plan = fit->network;
    const int last = plan->layers - 1;
    const REAL *flat[] = {parameters, m, v};
    for (int i = 0; i < 3; i++) {
        REAL *state = fit->state[i];
        memset(state, 0, trpo_critic_state_items(plan) * sizeof(REAL));
        for (int l = 0; l < last; l++) {
            const size_t in = plan->widths[l], out = plan->widths[l + 1];
            F(pack_panels)(in, out, flat[i] + plan->weight[l], 1, in, state + plan->forward_weight[l]);
            memcpy(state + plan->forward_bias[l], flat[i] + plan->bias[l], out * sizeof(REAL));
        }
        REAL *output = state + plan->forward_weight[last];
        memcpy(output, flat[i] + plan->weight[last], plan->widths[last] * sizeof(REAL));
        output[plan->padded[last]] = flat[i][plan->bias[last]];
    }
    /* Where observations and weights have padding, it is never written again. */
    memset(fit->scratch, 0, (size_t)fit->threads * trpo_critic_scratch_items(plan) * sizeof(REAL));
}

static void F(critic_save)(const trpo_critic_fit *fit, void *parameters, void *m, void *v) {
    const trpo_mlp *plan = fit->network;
    const int last = plan->layers - 1;
    REAL *flat[] = {parameters, m, v};
    for (int i = 0; i < 3; i++) {
        const REAL *state = fit->state[i];
        for (int l = 0; l < last; l++) {
            const size_t in = plan->widths[l], out = plan->widths[l + 1], columns = plan->padded[l + 1];
            for (size_t column = 0, width; column < columns; column += width) {
                width = F(panel_vectors)((columns - column) / VLEN) * VLEN;
                F(transpose)(out - column < width ? out - column : width, in,
                             state + plan->forward_weight[l] + column * in, 1, width,
                             flat[i] + plan->weight[l] + column * in, in, 1);
            }
            memcpy(flat[i] + plan->bias[l], state + plan->forward_bias[l], out * sizeof(REAL));
        }
        const REAL *output = state + plan->forward_weight[last];
        memcpy(flat[i] + plan->weight[last], output, plan->widths[last] * sizeof(REAL));
        flat[i][plan->bias[last]] = output[plan->padded[last]];
    }
}
