/* Diagonal Gaussian with state-independent log-std, and categorical over logits, a row at a time, in double. */

/* -sum over actions of z^2 / 2 + log_std + log(2 pi) / 2. Never inlined: every caller must get the same bits, and copies may
 * fuse multiplies and adds differently. */
NOINLINE REAL F(gaussian_log_prob)(size_t n, const REAL *mean, const REAL *action, const double *inverse_std,
                                   double log_normalizer) {
    double squares = 0;
    for (size_t j = 0; j < n; j++) {
        const double z = ((double)action[j] - (double)mean[j]) * inverse_std[j];
        squares += z * z;
    }
    return (REAL)(-0.5 * squares - log_normalizer);
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

/* Logits to their log-softmax, in place. */
NOINLINE void F(log_softmax)(size_t n, REAL *z) {
    double largest = (double)z[0], sum = 0;
    for (size_t j = 1; j < n; j++) largest = (double)z[j] > largest ? (double)z[j] : largest;
    for (size_t j = 0; j < n; j++) sum += exp((double)z[j] - largest);
    const double normalizer = largest + log(sum);
    for (size_t j = 0; j < n; j++) z[j] = (REAL)((double)z[j] - normalizer);
}

#if !defined(TRPO_EXPM1_MINUS)
#define TRPO_EXPM1_MINUS
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
#endif

/* KL(a || b) of two categoricals from their log-probabilities. Each term is non-negative:
 * sum a (log a - log b) = sum a (log a - log b) - a + b = sum a (e^d - 1 - d), d = log b - log a. */
INLINE double F(categorical_kl)(size_t n, const REAL *log_a, const REAL *log_b) {
    double sum = 0;
    for (size_t j = 0; j < n; j++) {
        const double a = exp((double)log_a[j]), d = (double)log_b[j] - (double)log_a[j];
        if (d < 1)
            sum += a * expm1_minus(d);
        else /* a e^d is b, which stays finite where e^d overflows */
            sum += exp((double)log_b[j]) - (a > 0 ? a + a * d : 0);
    }
    return sum;
}

/* The first action whose cumulative probability reaches u in (0, 1]; one of positive probability whatever the rounding. */
INLINE int64_t F(categorical_draw)(size_t n, const REAL *log_p, double u) {
    double total = 0, sum = 0;
    for (size_t j = 0; j < n; j++) total += exp((double)log_p[j]);
    int64_t last = 0;
    for (size_t j = 0; j < n; j++) {
        const double p = exp((double)log_p[j]);
        if (p <= 0) continue;
        last = (int64_t)j;
        sum += p;
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
