/* Distributions over actions, a row at a time, in double: diagonal Gaussian with state-independent log-std, independent
 * categorical blocks of logits, independent Bernoulli logits. First each family, then what serves all of them. */

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
        inverse_std[j] = exp(-(double)log_std[j]);
        sum += (double)log_std[j];
    }
    return sum + 0.91893853320467274178 * (double)n; /* log(2 pi) / 2 */
}

/* Logits of one block to their log-softmax over the allowed ones, in place; forbidden ones become -inf. allowed: n
 * items, or NULL. */
NOINLINE void F(log_softmax)(size_t n, const uint8_t *allowed, REAL *z) {
    double largest = -INFINITY, sum = 0;
    for (size_t j = 0; j < n; j++) {
        if (allowed && !allowed[j]) z[j] = -(REAL)INFINITY;
        largest = (double)z[j] > largest ? (double)z[j] : largest;
    }
    for (size_t j = 0; j < n; j++) {
        const double below = (double)z[j] - largest;
        sum += below == 0 ? 1 : exp(below);
    }
    const double normalizer = largest + log(sum);
    for (size_t j = 0; j < n; j++) z[j] = (REAL)((double)z[j] - normalizer);
}

#if !defined(TRPO_LOG_TERMS)
#define TRPO_LOG_TERMS
/* e^x - 1 - x >= 0, to full relative precision: the building block of every KL term here. */
static double expm1_minus(double x) {
    if (fabs(x) > 0.5) {
        const double value = expm1(x) - x;
        return value > 0 ? value : (value == value ? 0 : value);
    }
    double sum = 1.0; /* x^2/2 (1 + x/3 (1 + x/4 (...))): 0.5^15 / 16! is below rounding */
    for (int k = 16; k >= 3; k--) sum = 1.0 + x / k * sum;
    return 0.5 * x * x * sum;
}

/* One choice's term of KL(a || b), from its log-probabilities; never negative:
 * sum a (log a - log b) = sum a (log a - log b) - a + b = sum a (e^d - 1 - d), d = log b - log a. */
static double kl_term(double log_a, double log_b) {
    if (log_a == log_b) return 0; /* -inf too: impossible under both */
    const double a = exp(log_a), d = log_b - log_a;
    if (a == 0) return exp(log_b);
    if (d < 1) return a * expm1_minus(d);
    return exp(log_b) - (a + a * d); /* a e^d is b, which stays finite where e^d overflows */
}

/* Of a logit; infinite ones are certainties. */
static double log_sigmoid(double z) { return z < 0 ? z - log1p(exp(z)) : -log1p(exp(-z)); }
static double sigmoid(double z) { return 1 / (1 + exp(-z)); }
#endif

/* The first action whose cumulative probability reaches u in (0, 1]; one of positive probability whatever the rounding. */
INLINE int64_t F(categorical_draw)(size_t n, const REAL *log_p, double u) {
    double p[TRPO_MAX_OUTPUTS], total = 0, sum = 0;
    for (size_t j = 0; j < n; j++) total += p[j] = exp((double)log_p[j]);
    int64_t last = 0;
    for (size_t j = 0; j < n; j++) {
        if (p[j] <= 0) continue;
        last = (int64_t)j;
        sum += p[j];
        if (sum >= u * total) break;
    }
    return last;
}

INLINE int64_t F(categorical_mode)(size_t n, const REAL *log_p) {
    size_t best = 0;
    for (size_t j = 1; j < n; j++)
        if (log_p[j] > log_p[best]) best = j;
    return (int64_t)best;
}

/* ---- one row of any distribution. output: layout->outputs items, resolved but where said; action: of the layout ---- */

INLINE const void *F(row_action)(const trpo_action_layout *layout, const void *actions, size_t row) {
    const size_t item = layout->distribution == TRPO_GAUSSIAN ? sizeof(REAL) : sizeof(int64_t);
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

/* The network's output to what everything below reads, in place: means stay; logits become the log-softmax of their
 * block; a Bernoulli's stay, but +-inf where the mask leaves one value. */
INLINE void F(row_resolve)(const trpo_action_layout *layout, const uint8_t *mask, REAL *output) {
    if (layout->distribution == TRPO_CATEGORICAL) {
        for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++])
            F(log_softmax)(layout->sizes[k], mask ? mask + at : NULL, output + at);
    } else if (layout->distribution == TRPO_BERNOULLI && mask) {
        for (size_t j = 0; j < layout->outputs; j++)
            if (!mask[2 * j] || !mask[2 * j + 1]) output[j] = mask[2 * j] ? -(REAL)INFINITY : (REAL)INFINITY;
    }
}

/* What the Fisher information of the logits is made of: p, or p (1 - p) for a Bernoulli. Discrete only. */
INLINE void F(row_metric)(const trpo_action_layout *layout, const REAL *output, REAL *metric) {
    for (size_t j = 0; j < layout->outputs; j++) {
        const double z = (double)output[j];
        metric[j] = (REAL)(layout->distribution == TRPO_CATEGORICAL ? exp(z) : sigmoid(z) * sigmoid(-z));
    }
}

/* inverse_std, log_normalizer: of gaussian_prepare, Gaussian only. Never inlined, as gaussian_log_prob. */
NOINLINE double F(row_log_prob)(const trpo_action_layout *layout, const REAL *output, const void *action,
                                const double *inverse_std, double log_normalizer) {
    if (layout->distribution == TRPO_GAUSSIAN)
        return F(gaussian_log_prob)(layout->outputs, output, action, inverse_std, log_normalizer);
    const int64_t *choice = action;
    double sum = 0;
    if (layout->distribution == TRPO_CATEGORICAL)
        for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++])
            sum += (double)output[at + (size_t)choice[k]];
    else
        for (size_t j = 0; j < layout->outputs; j++)
            sum += log_sigmoid(choice[j] ? (double)output[j] : -(double)output[j]);
    return sum;
}

/* KL(a || b) of two rows; for a Gaussian without what log_std alone contributes. b_inverse_std: Gaussian only. */
INLINE double F(row_kl)(const trpo_action_layout *layout, const REAL *a, const REAL *b, const double *b_inverse_std) {
    double sum = 0;
    if (layout->distribution == TRPO_GAUSSIAN) {
        for (size_t j = 0; j < layout->outputs; j++) {
            const double z = ((double)a[j] - (double)b[j]) * b_inverse_std[j];
            sum += z * z;
        }
        return 0.5 * sum;
    }
    for (size_t j = 0; j < layout->outputs; j++) {
        const double p = (double)a[j], q = (double)b[j];
        if (layout->distribution == TRPO_CATEGORICAL)
            sum += kl_term(p, q);
        else
            sum += kl_term(log_sigmoid(p), log_sigmoid(q)) + kl_term(log_sigmoid(-p), log_sigmoid(-q));
    }
    return sum;
}

/* Entropy; discrete only. metric: of the row. Never inlined: at theta_old the change is exactly nothing. */
NOINLINE double F(row_entropy)(const trpo_action_layout *layout, const REAL *output, const REAL *metric) {
    double sum = 0;
    for (size_t j = 0; j < layout->outputs; j++) {
        if (metric[j] <= 0) continue; /* impossible, or certain */
        const double z = (double)output[j];
        if (layout->distribution == TRPO_CATEGORICAL)
            sum -= (double)metric[j] * z;
        else
            sum -= sigmoid(z) * log_sigmoid(z) + sigmoid(-z) * log_sigmoid(-z);
    }
    return sum;
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
    for (size_t j = 0; j < layout->outputs; j++) {
        if (layout->distribution == TRPO_GAUSSIAN) {
            const double z = ((double)((const REAL *)action)[j] - (double)output[j]) * inverse_std[j];
            score[j] = (REAL)(weight * z * inverse_std[j]);
        } else {
            score[j] = (REAL)(choice[j] ? weight * sigmoid(-(double)output[j]) : -weight * sigmoid((double)output[j]));
        }
    }
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

/* t = M t / total for one row's tangent of the logits, in place; discrete only. metric: of the row. */
INLINE void F(row_fisher)(const trpo_action_layout *layout, const REAL *metric, double total, REAL *t) {
    if (layout->distribution == TRPO_BERNOULLI) {
        for (size_t j = 0; j < layout->outputs; j++) t[j] = (REAL)((double)metric[j] * (double)t[j] / total);
        return;
    }
    for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++]) {
        const size_t end = at + layout->sizes[k];
        double inner = 0, sum = 0;
        for (size_t j = at; j < end; j++) {
            inner += (double)metric[j] * (double)t[j];
            sum += (double)metric[j];
        }
        /* With p as it was rounded, diag(p) - p p' has a negative eigenvalue where p adds up to more than 1;
         * diag(p) - p p' / sum p has none. */
        inner /= sum;
        for (size_t j = at; j < end; j++) t[j] = (REAL)((double)metric[j] * ((double)t[j] - inner) / total);
    }
}

/* A draw, or with key NULL the mode; noise row `row`. inverse_std: Gaussian only. action: OUT. */
INLINE void F(row_draw)(const trpo_action_layout *layout, const trpo_random_key *key, uint32_t row, const REAL *output,
                        const double *inverse_std, void *action) {
    double noise[TRPO_MAX_OUTPUTS + 1];
    int64_t *choice = action;
    if (layout->distribution == TRPO_GAUSSIAN) {
        REAL *a = action;
        if (key) trpo_random_normal(key, row, (int)layout->outputs, noise);
        for (size_t j = 0; j < layout->outputs; j++)
            a[j] = key ? (REAL)((double)output[j] + noise[j] / inverse_std[j]) : output[j];
        return;
    }
    if (key) trpo_random_uniform(key, row, (int)layout->components, noise);
    if (layout->distribution == TRPO_BERNOULLI) {
        for (size_t j = 0; j < layout->outputs; j++) /* the noise is on (0, 1]: certainties stay */
            choice[j] = key ? noise[j] <= sigmoid((double)output[j]) : output[j] > 0;
        return;
    }
    for (size_t k = 0, at = 0; k < layout->components; at += layout->sizes[k++])
        choice[k] = key ? F(categorical_draw)(layout->sizes[k], output + at, noise[k])
                        : F(categorical_mode)(layout->sizes[k], output + at);
}
