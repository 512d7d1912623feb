/* Recurrent cells over sequences: forward, forward-mode (jvp) and reverse-mode (vjp) passes; contracts are in trpo/kernels.h.
 *
 * What a pass keeps of a step is one stretch for each sequence, of vectors as long as the padded units: of a GRU r, z, n, u_n
 * and the h before, of an LSTM i, f, g, o, tanh(c) and the c before. */

enum { F(GRU_KEPT_) = 5, F(LSTM_KEPT_) = 6 };

static void F(cell_plan)(trpo_cell_kind kind, size_t units, trpo_cell *plan) {
    memset(plan, 0, sizeof *plan);
    plan->kind = kind;
    plan->units = units;
    plan->gates = kind == TRPO_GRU ? 3 : 4;
    plan->state_items = kind == TRPO_GRU ? units : 2 * units;
    plan->padded = F(round_up)(units);
    plan->forward_items = plan->gates * (units + 1) * plan->padded;
    plan->backward_items = plan->gates * units * plan->padded;
    plan->kept_items = (kind == TRPO_GRU ? F(GRU_KEPT_) : F(LSTM_KEPT_)) * plan->padded;
    /* the state and its successor or cotangent, then the gates */
    plan->scratch_items = (2 + plan->gates) * plan->padded;
}

static void F(cell_pack)(const trpo_cell *cell, const void *weight_, const void *bias_, void *forward_,
                         void *backward_) {
    const REAL *weight = weight_, *bias = bias_;
    REAL *forward = forward_, *backward = backward_;
    const size_t n = cell->units, gate = n * cell->padded;
    for (size_t g = 0; g < cell->gates; g++) {
        F(pack_panels)(n, n, weight + g * n * n, 1, n, forward + g * gate);
        F(pack_panels)(1, n, bias + g * n, 0, 1, forward + cell->gates * gate + g * cell->padded);
        if (backward) F(pack_panels)(n, n, weight + g * n * n, n, 1, backward + g * gate);
    }
}

/* Every task has some of the sequences, for all steps. */
typedef struct {
    const trpo_cell *cell;
    size_t steps, sequences, each;
    const REAL *packed;
    const uint8_t *starts; /* or NULL */
    const REAL *inputs;    /* of the forward pass; tangents of the inputs; cotangents of h */
    const REAL *recurrent; /* tangents of u that the weights' own bring */
    const REAL *first;     /* states before the first step */
    REAL *kept;            /* or NULL */
    REAL *out;             /* states; tangents of h; cotangents of the inputs */
    REAL *more;            /* cotangents of u, GRU only */
    REAL *scratch;
} F(sequence_job_);

/* Items of an array without padding to a padded row, and back. */
INLINE void F(fill_row)(const trpo_cell *cell, const REAL *from, REAL *to) {
    memcpy(to, from, cell->units * sizeof(REAL));
    memset(to + cell->units, 0, (cell->padded - cell->units) * sizeof(REAL));
}
INLINE void F(clear_row)(const trpo_cell *cell, REAL *row) { memset(row, 0, cell->padded * sizeof(REAL)); }

INLINE int F(starts_here)(const F(sequence_job_) * job, size_t t, size_t i) {
    return job->starts && job->starts[t * job->sequences + i];
}

/* gate (+)= bias + rows of h times that gate's weights, for `rows` sequences. */
INLINE void F(gate_product)(const trpo_cell *cell, const REAL *packed, const REAL *bias, size_t g, size_t rows,
                            const REAL *h, REAL *gate, int add) {
    const F(product_) p = {.row_stride = cell->padded,
                           .k_stride = 1,
                           .k1 = cell->units,
                           .x1 = h,
                           .b1 = packed + g * cell->units * cell->padded,
                           .bias = bias ? bias + g * cell->padded : NULL,
                           .y = gate,
                           .ldy = cell->padded,
                           .epilogue = add ? F(ADD_) : F(STORE_)};
    F(multiply)(&p, rows, cell->padded);
}

/* Where the first and the number of a task's sequences are, and its part of the scratch: rows of the state, of what follows it,
 * and of every gate. */
typedef struct {
    size_t first, count;
    REAL *state, *next, *gates;
} F(sequence_task_);
INLINE F(sequence_task_) F(task_of)(const F(sequence_job_) * job, int task) {
    const trpo_cell *cell = job->cell;
    const size_t first = (size_t)task * job->each, left = job->sequences - first;
    REAL *scratch = job->scratch + first * cell->scratch_items;
    const size_t count = left < job->each ? left : job->each;
    return (F(sequence_task_)){.first = first,
                               .count = count,
                               .state = scratch,
                               .next = scratch + count * cell->padded,
                               .gates = scratch + 2 * count * cell->padded};
}

/* ---- one row of a step: everything is of padded length; pre: gates at distance `stride` ---- */

/* gates r, z: x + u; n: x alone; u_n; h, updated. kept: or NULL. */
INLINE void F(gru_row)(size_t n, const REAL *pre, size_t stride, const REAL *u_n, REAL *h, REAL *kept) {
    for (size_t j = 0; j < n; j += VLEN) {
        const vreal r = F(vsigmoid)(F(load)(pre + j)), z = F(vsigmoid)(F(load)(pre + stride + j));
        const vreal u = F(load)(u_n + j), before = F(load)(h + j);
        const vreal candidate = F(vtanh)(F(load)(pre + 2 * stride + j) + r * u);
        F(store)(h + j, candidate + z * (before - candidate));
        if (!kept) continue;
        F(store)(kept + j, r);
        F(store)(kept + n + j, z);
        F(store)(kept + 2 * n + j, candidate);
        F(store)(kept + 3 * n + j, u);
        F(store)(kept + 4 * n + j, before);
    }
}

INLINE void F(lstm_row)(size_t n, const REAL *pre, size_t stride, REAL *h, REAL *c, REAL *kept) {
    for (size_t j = 0; j < n; j += VLEN) {
        const vreal i = F(vsigmoid)(F(load)(pre + j)), f = F(vsigmoid)(F(load)(pre + stride + j));
        const vreal g = F(vtanh)(F(load)(pre + 2 * stride + j)), o = F(vsigmoid)(F(load)(pre + 3 * stride + j));
        const vreal before = F(load)(c + j), cell = f * before + i * g, squashed = F(vtanh)(cell);
        F(store)(c + j, cell);
        F(store)(h + j, o * squashed);
        if (!kept) continue;
        F(store)(kept + j, i);
        F(store)(kept + n + j, f);
        F(store)(kept + 2 * n + j, g);
        F(store)(kept + 3 * n + j, o);
        F(store)(kept + 4 * n + j, squashed);
        F(store)(kept + 5 * n + j, before);
    }
}

static void F(cell_forward_task)(void *job_, int task, int thread) {
    const F(sequence_job_) *job = job_;
    const trpo_cell *cell = job->cell;
    const F(sequence_task_) own = F(task_of)(job, task);
    const size_t n = cell->padded, units = cell->units, gates = cell->gates, stride = own.count * n;
    const REAL *bias = job->packed + gates * units * n;
    const int gru = cell->kind == TRPO_GRU;
    REAL *h = own.state, *second = own.next; /* u_n of a GRU, c of an LSTM */
    (void)thread;
    for (size_t i = 0; i < own.count; i++) {
        const REAL *first = job->first + (own.first + i) * cell->state_items;
        F(fill_row)(cell, first, h + i * n);
        if (!gru) F(fill_row)(cell, first + units, second + i * n);
    }
    for (size_t t = 0; t < job->steps; t++) {
        const size_t at = t * job->sequences + own.first;
        for (size_t i = 0; i < own.count; i++) {
            if (F(starts_here)(job, t, own.first + i)) {
                F(clear_row)(cell, h + i * n);
                if (!gru) F(clear_row)(cell, second + i * n);
            }
            for (size_t g = 0; g < gates; g++)
                F(fill_row)(cell, job->inputs + ((at + i) * gates + g) * units, own.gates + g * stride + i * n);
        }
        for (size_t g = 0; g < gates; g++) {
            const int apart = gru && g == 2;
            F(gate_product)(cell, job->packed, bias, g, own.count, h, apart ? second : own.gates + g * stride, !apart);
        }
        for (size_t i = 0; i < own.count; i++) {
            REAL *kept = job->kept ? job->kept + (at + i) * cell->kept_items : NULL;
            REAL *out = job->out + (at + i) * cell->state_items;
            if (gru)
                F(gru_row)(n, own.gates + i * n, stride, second + i * n, h + i * n, kept);
            else
                F(lstm_row)(n, own.gates + i * n, stride, h + i * n, second + i * n, kept);
            memcpy(out, h + i * n, units * sizeof(REAL));
            if (!gru) memcpy(out + units, second + i * n, units * sizeof(REAL));
        }
    }
}

/* tangents of x + u for r, z (or i, f, g, o), of x for n, and of u_n; h: of the h before, and then after. */
INLINE void F(gru_tangent)(size_t n, const REAL *pre, size_t stride, const REAL *u_n, REAL *h, const REAL *kept) {
    const vreal one = F(splat)(1);
    for (size_t j = 0; j < n; j += VLEN) {
        const vreal r = F(load)(kept + j), z = F(load)(kept + n + j), candidate = F(load)(kept + 2 * n + j);
        const vreal u = F(load)(kept + 3 * n + j), before = F(load)(kept + 4 * n + j);
        const vreal dr = r * (one - r) * F(load)(pre + j), dz = z * (one - z) * F(load)(pre + stride + j);
        const vreal dn =
            (one - candidate * candidate) * (F(load)(pre + 2 * stride + j) + dr * u + r * F(load)(u_n + j));
        F(store)(h + j, (one - z) * dn + dz * (before - candidate) + z * F(load)(h + j));
    }
}

INLINE void F(lstm_tangent)(size_t n, const REAL *pre, size_t stride, REAL *h, REAL *c, const REAL *kept) {
    const vreal one = F(splat)(1);
    for (size_t j = 0; j < n; j += VLEN) {
        const vreal i = F(load)(kept + j), f = F(load)(kept + n + j), g = F(load)(kept + 2 * n + j);
        const vreal o = F(load)(kept + 3 * n + j), squashed = F(load)(kept + 4 * n + j);
        const vreal di = i * (one - i) * F(load)(pre + j), df = f * (one - f) * F(load)(pre + stride + j);
        const vreal dg = (one - g * g) * F(load)(pre + 2 * stride + j);
        const vreal o_tangent = o * (one - o) * F(load)(pre + 3 * stride + j);
        const vreal dc = df * F(load)(kept + 5 * n + j) + f * F(load)(c + j) + di * g + i * dg;
        F(store)(c + j, dc);
        F(store)(h + j, o_tangent * squashed + o * (one - squashed * squashed) * dc);
    }
}

static void F(cell_jvp_task)(void *job_, int task, int thread) {
    const F(sequence_job_) *job = job_;
    const trpo_cell *cell = job->cell;
    const F(sequence_task_) own = F(task_of)(job, task);
    const size_t n = cell->padded, units = cell->units, gates = cell->gates, stride = own.count * n;
    const int gru = cell->kind == TRPO_GRU;
    REAL *h = own.state, *second = own.next;
    (void)thread;
    memset(h, 0, stride * sizeof(REAL));
    memset(second, 0, stride * sizeof(REAL));
    for (size_t t = 0; t < job->steps; t++) {
        const size_t at = t * job->sequences + own.first;
        for (size_t i = 0; i < own.count; i++) {
            if (F(starts_here)(job, t, own.first + i)) {
                F(clear_row)(cell, h + i * n);
                if (!gru) F(clear_row)(cell, second + i * n);
            }
            for (size_t g = 0; g < gates; g++) {
                const size_t from = ((at + i) * gates + g) * units;
                REAL *gate = own.gates + g * stride + i * n;
                F(fill_row)(cell, job->inputs + from, gate);
                if (gru && g == 2)
                    F(fill_row)(cell, job->recurrent + from, second + i * n);
                else
                    for (size_t j = 0; j < units; j++) gate[j] += job->recurrent[from + j];
            }
        }
        for (size_t g = 0; g < gates; g++)
            F(gate_product)(cell, job->packed, NULL, g, own.count, h, gru && g == 2 ? second : own.gates + g * stride,
                            1);
        for (size_t i = 0; i < own.count; i++) {
            const REAL *kept = job->kept + (at + i) * cell->kept_items;
            if (gru)
                F(gru_tangent)(n, own.gates + i * n, stride, second + i * n, h + i * n, kept);
            else
                F(lstm_tangent)(n, own.gates + i * n, stride, h + i * n, second + i * n, kept);
            memcpy(job->out + (at + i) * units, h + i * n, units * sizeof(REAL));
        }
    }
}

/* h: the cotangent of the step's h, then what of that of the h before does not pass through W_hh. pre: cotangents of x, OUT;
 * u_n: of u_n, OUT. */
INLINE void F(gru_cotangent)(size_t n, REAL *pre, size_t stride, REAL *u_n, REAL *h, const REAL *kept) {
    const vreal one = F(splat)(1);
    for (size_t j = 0; j < n; j += VLEN) {
        const vreal r = F(load)(kept + j), z = F(load)(kept + n + j), candidate = F(load)(kept + 2 * n + j);
        const vreal d = F(load)(h + j), dn = d * (one - z) * (one - candidate * candidate);
        F(store)(pre + j, dn * F(load)(kept + 3 * n + j) * r * (one - r));
        F(store)(pre + stride + j, d * (F(load)(kept + 4 * n + j) - candidate) * z * (one - z));
        F(store)(pre + 2 * stride + j, dn);
        F(store)(u_n + j, dn * r);
        F(store)(h + j, d * z);
    }
}

/* c: the cotangent of the step's c but for what comes through h, then that of the c before. */
INLINE void F(lstm_cotangent)(size_t n, REAL *pre, size_t stride, const REAL *h, REAL *c, const REAL *kept) {
    const vreal one = F(splat)(1);
    for (size_t j = 0; j < n; j += VLEN) {
        const vreal i = F(load)(kept + j), f = F(load)(kept + n + j), g = F(load)(kept + 2 * n + j);
        const vreal o = F(load)(kept + 3 * n + j), squashed = F(load)(kept + 4 * n + j);
        const vreal d = F(load)(h + j), dc = F(load)(c + j) + d * o * (one - squashed * squashed);
        F(store)(pre + j, dc * g * i * (one - i));
        F(store)(pre + stride + j, dc * F(load)(kept + 5 * n + j) * f * (one - f));
        F(store)(pre + 2 * stride + j, dc * i * (one - g * g));
        F(store)(pre + 3 * stride + j, d * squashed * o * (one - o));
        F(store)(c + j, dc * f);
    }
}

static void F(cell_vjp_task)(void *job_, int task, int thread) {
    const F(sequence_job_) *job = job_;
    const trpo_cell *cell = job->cell;
    const F(sequence_task_) own = F(task_of)(job, task);
    const size_t n = cell->padded, units = cell->units, gates = cell->gates, stride = own.count * n;
    const int gru = cell->kind == TRPO_GRU;
    REAL *h = own.state, *second = own.next; /* of u_n, or of c */
    (void)thread;
    memset(h, 0, stride * sizeof(REAL));
    memset(second, 0, stride * sizeof(REAL));
    for (size_t t = job->steps; t-- > 0;) {
        const size_t at = t * job->sequences + own.first;
        for (size_t i = 0; i < own.count; i++) {
            const REAL *kept = job->kept + (at + i) * cell->kept_items, *given = job->inputs + (at + i) * units;
            REAL *row = h + i * n;
            for (size_t j = 0; j < units; j++) row[j] += given[j];
            if (gru) {
                F(gru_cotangent)(n, own.gates + i * n, stride, second + i * n, row, kept);
            } else {
                F(lstm_cotangent)(n, own.gates + i * n, stride, row, second + i * n, kept);
                F(clear_row)(cell, row);
            }
            for (size_t g = 0; g < gates; g++) {
                const size_t to = ((at + i) * gates + g) * units;
                const REAL *gate = own.gates + g * stride + i * n;
                memcpy(job->out + to, gate, units * sizeof(REAL));
                if (gru) memcpy(job->more + to, g == 2 ? second + i * n : gate, units * sizeof(REAL));
            }
        }
        for (size_t g = 0; g < gates; g++)
            F(gate_product)(cell, job->packed, NULL, g, own.count, gru && g == 2 ? second : own.gates + g * stride, h,
                            1);
        for (size_t i = 0; i < own.count; i++)
            if (F(starts_here)(job, t, own.first + i)) {
                F(clear_row)(cell, h + i * n);
                if (!gru) F(clear_row)(cell, second + i * n);
            }
    }
}

INLINE void F(run_sequences)(F(sequence_job_) * job, void (*run)(void *, int, int), int threads) {
    if (job->sequences == 0) return;
    job->each = (job->sequences + (size_t)threads - 1) / (size_t)threads;
    trpo_parallel((int)((job->sequences + job->each - 1) / job->each), threads, run, job);
}

static void F(cell_forward)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed,
                            const void *inputs, const uint8_t *starts, const void *first, void *states, void *kept,
                            void *scratch, int threads) {
    F(sequence_job_)
    job = {.cell = cell,
           .steps = steps,
           .sequences = sequences,
           .packed = packed,
           .starts = starts,
           .inputs = inputs,
           .first = first,
           .kept = kept,
           .out = states,
           .scratch = scratch};
    F(run_sequences)(&job, F(cell_forward_task), threads);
}

static void F(cell_jvp)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed, const void *kept,
                        const uint8_t *starts, const void *inputs, const void *recurrent, void *tangents, void *scratch,
                        int threads) {
    F(sequence_job_)
    job = {.cell = cell,
           .steps = steps,
           .sequences = sequences,
           .packed = packed,
           .starts = starts,
           .inputs = inputs,
           .recurrent = recurrent,
           .kept = (void *)kept,
           .out = tangents,
           .scratch = scratch};
    F(run_sequences)(&job, F(cell_jvp_task), threads);
}

static void F(cell_vjp)(const trpo_cell *cell, size_t steps, size_t sequences, const void *packed, const void *kept,
                        const uint8_t *starts, const void *cotangents, void *inputs, void *recurrent, void *scratch,
                        int threads) {
    F(sequence_job_)
    job = {.cell = cell,
           .steps = steps,
           .sequences = sequences,
           .packed = packed,
           .starts = starts,
           .inputs = cotangents,
           .kept = (void *)kept,
           .out = inputs,
           .more = recurrent,
           .scratch = scratch};
    F(run_sequences)(&job, F(cell_vjp_task), threads);
}
