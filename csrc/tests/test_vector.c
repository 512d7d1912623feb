/* Vector kernels against plain loops in double, at lengths around the vector widths. */
#include "check.h"

static void vectors(const trpo_kernels *k) {
    const size_t lengths[] = {0, 1, 3, 15, 16, 17, 63, 64, 65, 1000};
    for (size_t c = 0; c < sizeof lengths / sizeof lengths[0]; c++) {
        const size_t n = lengths[c];
        const double tolerance = 8 * k->epsilon;
        void *p = random_values(k, n, 1, 1), *Ap = random_values(k, n, 1, 2);
        void *x = random_values(k, n, 1, 3), *r = random_values(k, n, 1, 4);
        double *expected = malloc((n + 1) * sizeof(double)), *residual = malloc((n + 1) * sizeof(double));
        double dot = 0, size = 0;
        double rr = 0, rest = 0; /* to twice double precision (Ogita, Rump and Oishi 2005, "Dot2") */
        for (size_t i = 0; i < n; i++) {
            dot += item(k, p, i) * item(k, Ap, i);
            size += fabs(item(k, p, i) * item(k, Ap, i));
            expected[i] = item(k, x, i) + 0.5 * item(k, p, i);
            residual[i] = item(k, r, i) - 0.5 * item(k, Ap, i);
            const double product = residual[i] * residual[i], sum = rr + product, part = sum - rr;
            rest += rr - (sum - part) + (product - part) + fma(residual[i], residual[i], -product);
            rr = sum;
        }
        rr += rest;
        CHECK(fabs(k->dot(n, p, Ap) - dot) <= 1e-14 * size, "%s n=%zu", k->isa, n);
        CHECK(fabs(k->cg_update(n, 0.5, p, Ap, x, r) - rr) <= tolerance * (rr + 1), "%s n=%zu", k->isa, n);
        CHECK(relative_error(k, x, expected, n) <= tolerance, "%s n=%zu", k->isa, n);
        CHECK(relative_error(k, r, residual, n) <= tolerance, "%s n=%zu", k->isa, n);

        for (size_t i = 0; i < n; i++) expected[i] = item(k, r, i) + 0.25 * item(k, p, i);
        k->cg_direction(n, 0.25, r, p);
        CHECK(relative_error(k, p, expected, n) <= tolerance, "%s n=%zu", k->isa, n);
        for (size_t i = 0; i < n; i++) expected[i] = item(k, r, i) - 3 * item(k, p, i);
        k->step_from(n, r, -3, p, x);
        CHECK(relative_error(k, x, expected, n) <= tolerance, "%s n=%zu", k->isa, n);

        CHECK(k->all_finite(n, x), "%s n=%zu", k->isa, n);
        if (n > 0) {
            const double bad[] = {NAN, INFINITY, -INFINITY};
            for (size_t i = 0; i < 3 * n; i++) {
                const double sound = item(k, x, i / 3);
                set_item(k, x, i / 3, bad[i % 3]);
                CHECK(!k->all_finite(n, x), "%s n=%zu misses %g at %zu", k->isa, n, bad[i % 3], i / 3);
                set_item(k, x, i / 3, sound);
            }
        }
        free(p), free(Ap), free(x), free(r), free(expected), free(residual);
    }
}

/* After projecting orthonormal rows out of r, nothing of them is left. */
static void projection(const trpo_kernels *k) {
    enum { N = 100, ROWS = 3 };
    void *q = malloc(ROWS * N * k->item_size), *r = random_values(k, N, 1, 5);
    double coefficients[ROWS];
    for (size_t j = 0; j < ROWS; j++)
        for (size_t i = 0; i < N; i++) set_item(k, q, j * N + i, i == 7 * j ? 1 : 0);
    k->project_out(N, ROWS, q, q, coefficients, r);
    for (size_t j = 0; j < ROWS; j++) CHECK(item(k, r, 7 * j) == 0, "%s row %zu", k->isa, j);
    CHECK(item(k, r, 1) != 0, "%s", k->isa);
    free(q), free(r);
}

/* Of either sign, as arithmetic makes them: the sanitizer looks at what is done with their bits. */
static void elementary_functions_pass_nan_on(const trpo_kernels *k) {
    enum { N = 67 };
    void *x = malloc(N * k->item_size), *y = malloc(N * k->item_size);
    for (int function = 0; function <= TRPO_COSINE_OF_TURNS; function++) {
        const int activation = function % TRPO_DERIVATIVE;
        if (function < TRPO_EXP && (activation > TRPO_SOFTPLUS || (function != activation && activation < TRPO_SILU)))
            continue;
        for (size_t i = 0; i < N; i++) set_item(k, x, i, i % 4 == 3 ? 0.5 : copysign(NAN, i % 2 ? -1 : 1));
        k->elementary(function, N, x, y);
        for (size_t i = 0; i < N; i++)
            CHECK(!isnan(item(k, y, i)) == (i % 4 == 3), "%s function %d of item %zu: %g", k->isa, function, i,
                  item(k, y, i));
    }
    free(x), free(y);
}

int main(void) {
    for_every_table(elementary_functions_pass_nan_on);
    for_every_table(vectors);
    for_every_table(projection);
    return 0;
}
