/* Distributions over actions, in vectors of double along a row: diagonal Gaussian with state-independent log-std,
 * independent categorical blocks of logits, independent Bernoulli logits. First each family, then what serves all of them,
 * row by row or for `rows` of them at distance `stride`; products of several are products.h's.
 *
 * A row of outputs, of the metric, of a tangent or of a score has room up to the next multiple of VLEN. What lies there is
 * read, and may be overwritten, without a meaning. Sums are in an order that depends on their length alone, so that in
 * float32 a row gets the same bits on all instruction sets with multiply-adds: one may act, another update. (In float64 the
 * compiler may fuse a Gaussian's log-probability otherwise on each, so that one that updates acts, too.) */

/* Items of a row's work: whole vectors, and one more behind them. */
enum { F(ROW_) = TRPO_MAX_OUTPUTS + 64 / sizeof(double) };

/* Whole vectors of double. */
INLINE size_t F(row_width)(const trpo_action_layout *layout) { return (layout->outputs + DLEN - 1) / DLEN * DLEN; }

/* Rows whose work is done step by step together, so that no step waits for the one before: as many as the L1 cache holds. */
INLINE size_t F(rows_at_once)(size_t width) { return width < 512 ? 512 / width : 1; }

#if !TRPO_REAL_IS_DOUBLE
typedef REAL F(part_) __attribute__((vector_size(TRPO_VECTOR_BYTES / 2), aligned(sizeof(REAL)), may_alias));
#endif

/* DLEN items as doubles, and back. */
INLINE vdouble F(widen)(const REAL *p) {
#if TRPO_REAL_IS_DOUBLE
    return F(load)(p);
#elif defined(__clang__) || __GNUC__ >= 9
    return __builtin_convertvector(*(const F(part_) *)p, vdouble);
#else
    vdouble v;
    for (int j = 0; j < DLEN; j++) v[j] = (double)p[j];
    return v;
#endif
}

INLINE void F(narrow)(REAL *p, vdouble v) {
#if TRPO_REAL_IS_DOUBLE
    F(store)(p, v);
#elif defined(__clang__) || __GNUC__ >= 9
    *(F(part_) *)p = __builtin_convertvector(v, F(part_));
#else
    for (int j = 0; j < DLEN; j++) p[j] = (REAL)v[j];
#endif
}

INLINE REAL F(largest)(size_t n, const REAL *x) { /* NaN passes by */
    REAL most[4] = {-(REAL)INFINITY, -(REAL)INFINITY, -(REAL)INFINITY, -(REAL)INFINITY};
    size_t j = 0;
    for (; j + 4 <= n; j += 4)
        for (int i = 0; i < 4; i++) most[i] = x[j + i] > most[i] ? x[j + i] : most[i];
    for (; j < n; j++) most[0] = x[j] > most[0] ? x[j] : most[0];
    most[0] = most[1] > most[0] ? most[1] : most[0];
    most[2] = most[3] > most[2] ? most[3] : most[2];
    return most[2] > most[0] ? most[2] : most[0];
}

#if TRPO_REAL_IS_DOUBLE
/* Four lanes on every instruction set; written out, because what compilers make of a loop for long rows costs a short one
 * more than its sum. */
typedef double quad_ __attribute__((vector_size(4 * sizeof(double))));
typedef double quad_unaligned_ __attribute__((vector_size(4 * sizeof(double)), aligned(sizeof(double)), may_alias));
INLINE double total(size_t n, const double *x) {
    quad_ sum = {0};
    size_t j = 0;
    for (; j + 4 <= n; j += 4) sum += *(const quad_unaligned_ *)(x + j);
    double rest = 0;
    if (n & 2) {
        rest = x[j] + x[j + 1];
        j += 2;
    }
    if (n & 1) rest += x[j];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
}

/* n items, and up to DLEN - 1 behind them. */
INLINE void spread(size_t n, double value, double *x) {
    for (size_t j = 0; j < n; j += DLEN) F(store)(x + j, F(splat)(value));
}

/* x[i] = f(x[i]) for any n, nothing behind them touched; f is inlined. */
INLINE void map(vdouble (*f)(vdouble), size_t n, double *x) {
    size_t j = 0;
    for (; j + DLEN <= n; j += DLEN) F(store)(x + j, f(F(load)(x + j)));
    if (j == n) return;
    double lane[DLEN] = {0};
    memcpy(lane, x + j, (n - j) * sizeof(double));
    F(store)(lane, f(F(load)(lane)));
    memcpy(x + j, lane, (n - j) * sizeof(double));
}

/* Of one number: a lane's bits. */
INLINE double scalar_exp(double x) { return F(vexp)(F(splat)(x))[0]; }
INLINE double scalar_expm1(double x) { return F(vexpm1)(F(splat)(x))[0]; }
INLINE double scalar_log(double x) { return F(vlog)(F(splat)(x))[0]; }
NOINLINE void exp_each(size_t n, double *x) { map(F(vexp), n, x); }
NOINLINE void expm1_each(size_t n, double *x) { map(F(vexpm1), n, x); }
NOINLINE void sigmoid_each(size_t n, double *x) { map(F(vsigmoid), n, x); }
NOINLINE void softplus_each(size_t n, double *x) { map(F(vsoftplus), n, x); }

/* e^d - 1 - d >= 0, to full relative precision: the building block of every KL term here. Small |d| by the series, whose
 * remainder is below a tenth of an ulp. */
INLINE vdouble small_expm1_minus(vdouble d) { /* |d| <= 1/2 */
    vdouble sum = F(splat)(F(inverse_factorial)[15]);
    _Pragma("GCC unroll 16") for (int i = 14; i >= 2; i--) sum = sum * d + F(splat)(F(inverse_factorial)[i]);
    return d * d * sum;
}
NOINLINE double expm1_minus(double x) {
    const vdouble d = F(splat)(x), value = F(vexpm1)(d) - d;
    return F(select)(F(absolute)(d) <= 0.5, small_expm1_minus(d), F(select)(value < 0, (vdouble){0}, value))[0];
}

/* Choices' terms of KL(a || b), from their probabilities and the logarithms of these; never negative:
 * sum a (log a - log b) = sum a (log a - log b) - a + b = sum a (e^d - 1 - d), d = log b - log a. */
INLINE vdouble kl_terms(vdouble a, vdouble b, vdouble log_a, vdouble log_b) {
    const vdouble zero = {0}, d = log_b - log_a;
    vdouble term = b - (a + a * d); /* a e^d is b, which stays finite where e^d overflows */
    term = F(select)(a == 0, b, term);
    term = F(select)(F(absolute)(d) <= 0.5, a * small_expm1_minus(d), term);
    term = F(select)(term < 0, zero, term);
    return F(select)(log_a == log_b, zero, term); /* -inf too: impossible under both */
}

/* Of Bernoulli logits: probability of 1, and minus the logarithms of those of 1 and of 0. Infinite ones are certainties. */
typedef struct {
    vdouble p, q, minus_log_p, minus_log_q;
} bernoulli_parts;
INLINE bernoulli_parts bernoulli(vdouble z) {
    const vdouble zero = {0}, e = F(vexp)(-F(absolute)(z)), above = F(splat)(1) / (F(splat)(1) + e), below = e * above;
    const vdouble least = F(vlog1p)(e);
    return (bernoulli_parts){.p = F(select)(z < 0, below, above),
                             .q = F(select)(z < 0, above, below),
                             .minus_log_p = F(select)(z < 0, -z, zero) + least,
                             .minus_log_q = F(select)(z < 0, zero, z) + least};
}
INLINE vdouble bernoulli_kl(vdouble a_logit, vdouble b_logit) {
    const bernoulli_parts a = bernoulli(a_logit), b = bernoulli(b_logit);
    return kl_terms(a.p, b.p, -a.minus_log_p, -b.minus_log_p) + kl_terms(a.q, b.q, -a.minus_log_q, -b.minus_log_q);
}
INLINE vdouble bernoulli_entropy(vdouble z) { /* finite z */
    const vdouble size = F(absolute)(z), e = F(vexp)(-size);
    return F(vlog1p)(e) + size * e / (F(splat)(1) + e);
}
INLINE vdouble bernoulli_metric(vdouble z) { /* p (1 - p) */
    const vdouble e = F(vexp)(-F(absolute)(z)), above = F(splat)(1) / (F(splat)(1) + e);
    return e * above * above;
}
#endif

/* -sum over actions of z^2 / 2 + log_std + log(2 pi) / 2. Never inlined: every caller must get the same bits, and copies may
 * fuse multiplies and adds differently. */
NOINLINE double F(gaussian_log_prob)(size_t n, const REAL *mean, const REAL *action, const double *inverse_std,
                                     double log_normalizer) {
    double squares = 0;
    for (size_t j = 0; j < n; j++) {
        const double z = ((double)action[j] - (double)mean[j]) * inverse_std[j];
        squares += z * z;
    }
    return -0.5 * squares - log_normalizer;
}

/* inverse_std: n items, OUT. Returns sum of log_std + n log(2 pi) / 2. */
NOINLINE double F(gaussian_prepare)(size_t n, const REAL *log_std, double *inverse_std) {
    double sum = 0;
    for (size_t j = 0; j < n; j++) {
        inverse_std[j] = -(double)log_std[j];
        sum += (double)log_std[j];
    }
    exp_each(n, inverse_std);
    return sum + 0.91893853320467274178 * (double)n; /* log(2 pi) / 2 */
}

/* Rows of logits to the log-softmax of their blocks over the allowed ones, in place; forbidden ones become -inf. masks:
 * rows x outputs, or NULL. */
NOINLINE void F(log_softmax)(const trpo_action_layout *layout, const uint8_t *masks, size_t rows, REAL *z,
                             size_t stride) {
    double work[F(ROW_)], shift[F(ROW_)];
    const size_t n = layout->outputs, blocks = layout->components, width = F(row_width)(layout);
    const size_t most = F(rows_at_once)(width);
    for (size_t count; rows > 0; rows -= count, z += count * stride) {
        count = rows < most ? rows : most;
        for (size_t r = 0; r < count; r++) {
            REAL *row = z + r * stride;
            if (masks) {
                for (size_t j = 0; j < n; j++) row[j] = masks[j] ? row[j] : -(REAL)INFINITY;
                masks += n;
            }
            for (size_t k = 0, at = 0; k < blocks; at += layout->sizes[k++])
                spread(layout->sizes[k], (double)F(largest)(layout->sizes[k], row + at), shift + r * width + at);
            spread(1, 0, shift + r * width + n);
        }
        for (size_t r = 0; r < count; r++)
            for (size_t j = 0, at = r * width; j < n; j += DLEN, at += DLEN)
                D(store)(work + at, D(vexp)(F(widen)(z + r * stride + j) - D(load)(shift + at)));
        /* what is of a block goes to the block's own number, which lies in no later block */
        for (size_t r = 0; r < count; r++)
            for (size_t k = 0, at = r * width; k < blocks; at += layout->sizes[k++]) {
                work[r * blocks + k] = total(layout->sizes[k], work + at);
                shift[r * blocks + k] = shift[at];
            }
        for (size_t k = 0; k < count * blocks; k += DLEN)
            D(store)(work + k, D(load)(shift + k) + D(vlog)(D(load)(work + k)));
        for (size_t r = 0; r < count; r++) {
            for (size_t k = 0, at = r * width; k < blocks; at += layout->sizes[k++])
                spread(layout->sizes[k], work[r * blocks + k], shift + at);
            spread(1, 0, shift + r * width + n);
        }
        for (size_t r = 0; r < count; r++)
            for (size_t j = 0, at = r * width; j < n; j += DLEN, at += DLEN)
                F(narrow)(z + r * stride + j, F(widen)(z + r * stride + j) - D(load)(shift + at));
    }
}

/* The first action whose cumulative probability reaches u in (0, 1]; one of positive probability whatever the rounding. */
INLINE int64_t F(categorical_draw)(size_t n, const double *p, double u) {
    double all = 0, sum = 0;
    for (size_t j = 0; j < n; j++) all += p[j];
    int64_t last = 0;
    for (size_t j = 0; j < n; j++) {
        if (p[j] <= 0) continue;
        last = (int64_t)j;
        sum += p[j];
        if (sum >= u * all) break;
    }
    return last;
}

INLINE int64_t F(categorical_mode)(size_t n, const REAL *log_p) {
    size_t best = 0;
    for (size_t j = 1; j < n; j++)
        if (log_p[j] > log_p[best]) best = j;
    return (int64_t)best;
}

/* ---- one row of any single distribution. output: layout->outputs items, resolved but where said; action: of the layout ---- */

INLINE const void *F(row_action)(const trpo_action_layout *layout, const void *actions, size_t row) {
    const size_t item = trpo_action_is_real(layout) ? sizeof(REAL) : sizeof(int64_t);
    return (const char *)actions + row * layout->components * item;
}
INLINE const uint8_t *F(row_mask)(const trpo_action_layout *layout, const uint8_t *masks, size_t row) {
    return masks ? masks + row * layout->mask_items : NULL;
}

/* Whether a network's output may be resolved: weights that overflow give none of the distributions below. */
INLINE int F(row_finite)(const trpo_action_layout *layout, const REAL *output) {
    int finite = 1;
    for (size_t j = 0; j < layout->outputs; j++) finite &= isfinite(output[j]) != 0;
    return finite;
}

/* The network's outputs to what everything below reads, in place: means stay; logits become the log-softmax of their
 * block; a Bernoulli's stay, but +-inf where the mask leaves one value. masks: of the first row, or NULL. */
INLINE void F(resolve_rows)(const trpo_action_layout *layout, const uint8_t *masks, size_t rows, REAL *outputs,
                            size_t stride) {
    if (layout->distribution == TRPO_CATEGORICAL) {
        F(log_softmax)(layout, masks, rows, outputs, stride);
    } else if (layout->distribution == TRPO_BERNOULLI && masks) {
        for (size_t i = 0; i < rows; i++, masks += layout->mask_items)
            for (size_t j = 0; j < layout->outputs; j++)
                if (!masks[2 * j] || !masks[2 * j + 1])
                    outputs[i * stride + j] = masks[2 * j] ? -(REAL)INFINITY : (REAL)INFINITY;
    }
}

/* What the Fisher information of the logits is made of: p, or p (1 - p) for a Bernoulli. Discrete only. */
INLINE void F(row_metric)(const trpo_action_layout *layout, const REAL *output, REAL *metric) {
    if (layout->distribution == TRPO_CATEGORICAL)
        for (size_t j = 0; j < layout->outputs; j += DLEN) F(narrow)(metric + j, D(vexp)(F(widen)(output + j)));
    else
        for (size_t j = 0; j < layout->outputs; j += DLEN)
            F(narrow)(metric + j, bernoulli_metric(F(widen)(output + j)));
}

/* inverse_std, log_normalizer: of gaussian_prepare, Gaussian only. Never inlined, as gaussian_log_prob. */
NOINLINE double F(row_log_prob)(const trpo_action_layout *layout, const REAL *output, const void *action,
                                const double *inverse_std, double log_normalizer) {
    if (layout->distribution == TRPO_GAUSSIAN)
        return F(gaussian_log_prob)(layout->outputs, output, action, inverse_std, log_normalizer);
    const int64_t *choice = action;
    if (layout->distribution == TRPO_CATEGORICAL) {
        double sum = 0;
        for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++])
            sum += (double)output[at + (size_t)choice[k]];
        return sum;
    }
    double work[TRPO_MAX_OUTPUTS];
    for (size_t j = 0; j < layout->outputs; j++) work[j] = choice[j] ? -(double)output[j] : (double)output[j];
    softplus_each(layout->outputs, work);
    return -total(layout->outputs, work);
}

/* Whether no logarithm of a probability differs by more than a half. */
INLINE int F(row_is_near)(size_t n, const REAL *log_a, const REAL *log_b) {
    D(vint_) near = (D(vint_)){0} - 1;
    for (size_t j = 0; j < n; j += DLEN) near &= D(absolute)(F(widen)(log_b + j) - F(widen)(log_a + j)) <= 0.5;
    int64_t all = -1;
    for (int j = 0; j < DLEN; j++) all &= near[j];
    return all == -1;
}

/* Sum of KL(a || b) over rows; for a Gaussian without what log_std alone contributes. b_inverse_std: Gaussian only. */
NOINLINE double F(kl_rows)(const trpo_action_layout *layout, size_t rows, const REAL *a, const REAL *b, size_t stride,
                           const double *b_inverse_std) {
    const size_t n = layout->outputs;
    double work[F(ROW_)], sum = 0;
    for (; rows > 0; rows--, a += stride, b += stride) {
        if (layout->distribution == TRPO_GAUSSIAN) {
            double squares = 0;
            for (size_t j = 0; j < n; j++) {
                const double z = ((double)a[j] - (double)b[j]) * b_inverse_std[j];
                squares += z * z;
            }
            sum += 0.5 * squares;
            continue;
        }
        if (layout->distribution == TRPO_BERNOULLI) {
            for (size_t j = 0; j < n; j += DLEN) D(store)(work + j, bernoulli_kl(F(widen)(a + j), F(widen)(b + j)));
        } else if (F(row_is_near)(n, a, b)) { /* the same bits with fewer operations */
            for (size_t j = 0; j < n; j += DLEN) {
                const vdouble x = F(widen)(a + j);
                D(store)(work + j, D(vexp)(x) * small_expm1_minus(F(widen)(b + j) - x));
            }
        } else {
            for (size_t j = 0; j < n; j += DLEN) {
                const vdouble x = F(widen)(a + j), y = F(widen)(b + j);
                D(store)(work + j, kl_terms(D(vexp)(x), D(vexp)(y), x, y));
            }
        }
        sum += total(n, work);
    }
    return sum;
}

/* Entropy; discrete only. metric: of the row. Never inlined: at theta_old the change is exactly nothing. */
NOINLINE double F(row_entropy)(const trpo_action_layout *layout, const REAL *output, const REAL *metric) {
    double work[F(ROW_)];
    for (size_t j = 0; j < layout->outputs; j += DLEN) {
        const vdouble z = F(widen)(output + j), p = F(widen)(metric + j);
        const vdouble entropy = layout->distribution == TRPO_CATEGORICAL ? -p * z : bernoulli_entropy(z);
        D(store)(work + j, D(select)(p <= 0, (vdouble){0}, entropy)); /* impossible, or certain */
    }
    return total(layout->outputs, work);
}

/* score = weight * d log pi(action) / d output. metric: of the row, categorical only; inverse_std: Gaussian only. */
INLINE void F(row_score)(const trpo_action_layout *layout, const REAL *output, const REAL *metric, const void *action,
                         const double *inverse_std, double weight, REAL *score) {
    const int64_t *choice = action;
    if (layout->distribution == TRPO_CATEGORICAL) {
        for (size_t j = 0; j < layout->outputs; j++) score[j] = (REAL)(-weight * (double)metric[j]);
        for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++]) {
            const size_t j = at + (size_t)choice[k];
            score[j] = (REAL)(weight * (1.0 - (double)metric[j]));
        }
        return;
    }
    if (layout->distribution == TRPO_GAUSSIAN) {
        for (size_t j = 0; j < layout->outputs; j++) {
            const double z = ((double)((const REAL *)action)[j] - (double)output[j]) * inverse_std[j];
            score[j] = (REAL)(weight * z * inverse_std[j]);
        }
        return;
    }
    double work[TRPO_MAX_OUTPUTS];
    for (size_t j = 0; j < layout->outputs; j++) work[j] = choice[j] ? -(double)output[j] : (double)output[j];
    sigmoid_each(layout->outputs, work);
    for (size_t j = 0; j < layout->outputs; j++) score[j] = (REAL)((choice[j] ? weight : -weight) * work[j]);
}

/* sums += weight * d log pi(action) / d log_std; Gaussian only. sums: outputs items. */
INLINE void F(row_log_std_score)(const trpo_action_layout *layout, const REAL *output, const REAL *action,
                                 const double *inverse_std, double weight, double *sums) {
    for (size_t j = 0; j < layout->outputs; j++) {
        const double z = ((double)action[j] - (double)output[j]) * inverse_std[j];
        sums[j] += weight * (z * z - 1);
    }
}

/* score += weight * d entropy / d output; discrete only. metric: of the row. */
INLINE void F(row_entropy_score)(const trpo_action_layout *layout, const REAL *output, const REAL *metric,
                                 double weight, REAL *score) {
    if (layout->distribution == TRPO_BERNOULLI) {
        for (size_t j = 0; j < layout->outputs; j++)
            if (metric[j] > 0) score[j] = (REAL)((double)score[j] - weight * (double)output[j] * (double)metric[j]);
        return;
    }
    for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++]) {
        double entropy = 0;
        for (size_t j = at; j < at + layout->sizes[k]; j++)
            if (metric[j] > 0) entropy -= (double)metric[j] * (double)output[j];
        for (size_t j = at; j < at + layout->sizes[k]; j++)
            if (metric[j] > 0)
                score[j] = (REAL)((double)score[j] - weight * (double)metric[j] * ((double)output[j] + entropy));
    }
}

/* t = M t scale for rows of tangents of the logits, in place; discrete only. metric: of the rows, zero behind them. */
NOINLINE void F(fisher_rows)(const trpo_action_layout *layout, size_t rows, const REAL *metric, double scale, REAL *t,
                             size_t stride) {
    const size_t n = layout->outputs;
    if (layout->distribution == TRPO_BERNOULLI) {
        for (; rows > 0; rows--, metric += stride, t += stride)
            for (size_t j = 0; j < n; j += DLEN)
                F(narrow)(t + j, F(widen)(metric + j) * F(widen)(t + j) * D(splat)(scale));
        return;
    }
    double products[F(ROW_)], weights[F(ROW_)], shift[F(ROW_)];
    const size_t width = F(row_width)(layout), most = F(rows_at_once)(width);
    for (size_t count; rows > 0; rows -= count, metric += count * stride, t += count * stride) {
        count = rows < most ? rows : most;
        for (size_t r = 0; r < count; r++)
            for (size_t j = 0, at = r * width; j < n; j += DLEN, at += DLEN) {
                const vdouble p = F(widen)(metric + r * stride + j);
                D(store)(weights + at, p);
                D(store)(products + at, p * F(widen)(t + r * stride + j));
            }
        for (size_t r = 0; r < count; r++) {
            for (size_t k = 0, at = r * width; k < layout->components; at += layout->sizes[k++]) {
                const double mean = total(layout->sizes[k], products + at) / total(layout->sizes[k], weights + at);
                spread(layout->sizes[k], mean, shift + at);
            }
            spread(1, 0, shift + r * width + n);
        }
        for (size_t r = 0; r < count; r++)
            for (size_t j = 0, at = r * width; j < n; j += DLEN, at += DLEN) {
                const vdouble away = F(widen)(t + r * stride + j) - D(load)(shift + at);
                F(narrow)(t + r * stride + j, D(load)(weights + at) * away * D(splat)(scale));
            }
    }
}

/* The action that `noise` makes, standard normal numbers for a Gaussian and else uniform ones on (0, 1], an item for each
 * component; NULL: the mode. inverse_std: Gaussian only. action: OUT. */
INLINE void F(row_choose)(const trpo_action_layout *layout, const double *noise, const REAL *output,
                          const double *inverse_std, void *action) {
    int64_t *choice = action;
    if (layout->distribution == TRPO_GAUSSIAN) {
        REAL *a = action;
        for (size_t j = 0; j < layout->outputs; j++)
            a[j] = noise ? (REAL)((double)output[j] + noise[j] / inverse_std[j]) : output[j];
        return;
    }
    double p[F(ROW_)];
    if (layout->distribution == TRPO_BERNOULLI) {
        for (size_t j = 0; noise && j < layout->outputs; j += DLEN) D(store)(p + j, D(vsigmoid)(F(widen)(output + j)));
        for (size_t j = 0; j < layout->outputs; j++) /* the noise is on (0, 1]: certainties stay */
            choice[j] = noise ? noise[j] <= p[j] : output[j] > 0;
        return;
    }
    for (size_t j = 0; noise && j < layout->outputs; j += DLEN) D(store)(p + j, D(vexp)(F(widen)(output + j)));
    for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++])
        choice[k] = noise ? F(categorical_draw)(layout->sizes[k], p + at, noise[k])
                          : F(categorical_mode)(layout->sizes[k], output + at);
}

/* A draw, or with key NULL the mode; noise row `row`. inverse_std: Gaussian only. action: OUT. */
INLINE void F(row_draw)(const trpo_action_layout *layout, const trpo_random_key *key, uint32_t row, const REAL *output,
                        const double *inverse_std, void *action) {
    double noise[TRPO_MAX_OUTPUTS + 1];
    if (key && layout->distribution == TRPO_GAUSSIAN)
        trpo_random_normal(key, row, (int)layout->outputs, noise);
    else if (key)
        trpo_random_uniform(key, row, (int)layout->components, noise);
    F(row_choose)(layout, key ? noise : NULL, output, inverse_std, action);
}
