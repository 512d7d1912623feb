/* Advantages and running statistics. */

/* Generalized advantages (Schulman et al. 2016), backwards over time. All arrays time-major, steps x envs.
 *   delta = r + gamma V(s') (1 - terminated) - V(s);  A = delta + gamma lambda (1 - done) A_next;  R = A + V(s) */
static void F(gae)(size_t steps, size_t envs, double gamma, double lambda, const void *rewards_, const void *values_,
                   const void *next_values_, const uint8_t *terminated, const uint8_t *truncated, void *advantages_,
                   void *returns_) {
    const REAL *rewards = rewards_, *values = values_, *next_values = next_values_;
    REAL *advantages = advantages_, *returns = returns_;
    for (size_t e = 0; e < envs; e++) {
        double next = 0;
        for (size_t t = steps; t-- > 0;) {
            const size_t i = t * envs + e;
            const double value = (double)values[i];
            const double bootstrap = terminated[i] ? 0 : gamma * (double)next_values[i];
            const double delta = (double)rewards[i] + bootstrap - value;
            next = delta + (terminated[i] || truncated[i] ? 0 : gamma * lambda * next);
            advantages[i] = (REAL)next;
            returns[i] = (REAL)(next + value);
        }
    }
}

/* (A - mean) / std in place; zeros where std is of rounding size. */
static void F(standardize)(size_t n, void *a_, double *mean_out, double *std_out) {
    REAL *a = a_;
    double sum = 0, correction = 0, squares = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i];
        if (fabs((double)a[i]) > largest) largest = fabs((double)a[i]);
    }
    double mean = n ? sum / (double)n : 0;
    /* A long sum is off by more than the rounding of one value, and values all alike would get that as their deviation. */
    for (size_t i = 0; i < n; i++) correction += (double)a[i] - mean;
    if (n) mean += correction / (double)n;
    for (size_t i = 0; i < n; i++) squares += ((double)a[i] - mean) * ((double)a[i] - mean);
    const double std = n ? sqrt(squares / (double)n) : 0;
    const double rounding = 8 * (sizeof(REAL) == 4 ? (double)FLT_EPSILON : DBL_EPSILON) * largest;
    const double scale = std > rounding ? 1 / std : 0;
    for (size_t i = 0; i < n; i++) a[i] = (REAL)(((double)a[i] - mean) * scale);
    *mean_out = mean;
    *std_out = std;
}

/* Chan, Golub & LeVeque's merge of a batch into running moments (mean and sum of squared deviations, columns items each).
 * Returns 1 + the flat index of the first non-finite entry, with the statistics untouched, or 0. */
static size_t F(merge_moments)(size_t rows, size_t columns, const void *data_, double count, double *mean, double *m2) {
    const REAL *data = data_;
    for (size_t i = 0; i < rows * columns; i++)
        if (!isfinite(data[i])) return i + 1;
    const double n = (double)rows, total = count + n;
    /* Some columns side by side, row after row: a column by itself would use a few bytes of each line that it reads. */
    enum { SIDE_BY_SIDE = 64 };
    for (size_t first = 0; rows > 0 && first < columns; first += SIDE_BY_SIDE) {
        const size_t width = columns - first < SIDE_BY_SIDE ? columns - first : SIDE_BY_SIDE;
        double center[SIDE_BY_SIDE] = {0}, squares[SIDE_BY_SIDE] = {0};
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < width; j++) center[j] += (double)data[i * columns + first + j];
        for (size_t j = 0; j < width; j++) center[j] /= n;
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < width; j++) {
                const double deviation = (double)data[i * columns + first + j] - center[j];
                squares[j] += deviation * deviation;
            }
        for (size_t j = 0; j < width; j++) {
            const double shift = center[j] - mean[first + j];
            mean[first + j] += shift * n / total;
            m2[first + j] += squares[j] + shift * shift * count * n / total;
        }
    }
    return 0;
}
