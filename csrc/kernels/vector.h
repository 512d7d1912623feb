/* Vector operations of conjugate gradient. Dot products accumulate in double, in 16 partial sums that are added in a
 * fixed order. */

INLINE REAL F(square_root)(REAL x) { return sizeof(REAL) == 4 ? (REAL)sqrtf((float)x) : (REAL)sqrt((double)x); }

enum { F(LANES_) = 16 };

INLINE double F(lane_total)(const double *lane) {
    double sum = 0;
    for (int j = 0; j < 4; j++) sum += (lane[j] + lane[j + 4]) + (lane[j + 8] + lane[j + 12]);
    return sum;
}

static double F(dot)(size_t n, const void *x_, const void *y_) {
    const REAL *x = x_, *y = y_;
    double lane[F(LANES_)] = {0};
    size_t i = 0;
    for (; i + F(LANES_) <= n; i += F(LANES_))
        for (int j = 0; j < F(LANES_); j++) lane[j] += (double)x[i + j] * (double)y[i + j];
    for (int j = 0; i < n; i++, j++) lane[j] += (double)x[i] * (double)y[i];
    return F(lane_total)(lane);
}

static double F(cg_update)(size_t n, double alpha_, const void *p_, const void *Ap_, void *x_, void *r_) {
    const REAL alpha = (REAL)alpha_, *p = p_, *Ap = Ap_;
    REAL *x = x_, *r = r_;
    double lane[F(LANES_)] = {0};
    size_t i = 0;
    for (; i + F(LANES_) <= n; i += F(LANES_))
        for (int j = 0; j < F(LANES_); j++) {
            x[i + j] += alpha * p[i + j];
            r[i + j] -= alpha * Ap[i + j];
            lane[j] += (double)r[i + j] * (double)r[i + j];
        }
    for (int j = 0; i < n; i++, j++) {
        x[i] += alpha * p[i];
        r[i] -= alpha * Ap[i];
        lane[j] += (double)r[i] * (double)r[i];
    }
    return F(lane_total)(lane);
}

static void F(cg_direction)(size_t n, double beta_, const void *z_, void *p_) {
    const REAL beta = (REAL)beta_, *z = z_;
    REAL *p = p_;
    for (size_t i = 0; i < n; i++) p[i] = z[i] + beta * p[i];
}

static void F(axpy)(size_t n, double alpha_, const void *x_, void *y_) {
    const REAL alpha = (REAL)alpha_, *x = x_;
    REAL *y = y_;
    for (size_t i = 0; i < n; i++) y[i] += alpha * x[i];
}

static void F(scaled_copy)(size_t n, double alpha_, const void *x_, void *y_) {
    const REAL alpha = (REAL)alpha_, *x = x_;
    REAL *y = y_;
    for (size_t i = 0; i < n; i++) y[i] = alpha * x[i];
}

static void F(step_from)(size_t n, const void *origin_, double alpha_, const void *x_, void *y_) {
    const REAL alpha = (REAL)alpha_, *x = x_, *origin = origin_;
    REAL *y = y_;
    for (size_t i = 0; i < n; i++) y[i] = origin[i] + alpha * x[i];
}

static int F(all_finite)(size_t n, const void *x_) {
    const REAL *x = x_;
    REAL lane[F(LANES_)] = {0}, check = 0; /* 0 * x is 0 for every finite x, else NaN */
    size_t i = 0;
    for (; i + F(LANES_) <= n; i += F(LANES_))
        for (int j = 0; j < F(LANES_); j++) lane[j] += x[i + j] * 0;
    for (; i < n; i++) check += x[i] * 0;
    for (int j = 0; j < F(LANES_); j++) check += lane[j];
    return check == 0;
}

/* r -= sum_j Q_j (Z_j . r): coefficients first, all against the same r, then one pass over r. */
static void F(project_out)(size_t n, size_t k, const void *Z_, const void *Q_, double *coefficients, void *r_) {
    const REAL *Z = Z_, *Q = Q_;
    REAL *r = r_;
    for (size_t j = 0; j < k; j++) coefficients[j] = F(dot)(n, Z + j * n, r);
    for (size_t j = 0; j < k; j++) F(axpy)(n, -coefficients[j], Q + j * n, r);
}
