/* Kernels over vectors, elementary functions, advantages, running moments and random numbers. */
#include "fuzz.h"

static int close_to(const trpo_kernels *k, double found, double wanted, double size) {
    return !isfinite(wanted) || !isfinite(size) || fabs(found - wanted) <= 64 * k->epsilon * (size + k->epsilon);
}

static void vectors(input *in, arena *a, size_t n) {
    const trpo_kernels *k = a->k;
    const void *x = arena_constant(a, arena_values(a, in, n)), *p = arena_constant(a, arena_values(a, in, n));
    void *y = arena_values(a, in, n), *r = arena_values(a, in, n);
    const double alpha = take_value(in);
    double wanted = 0, size = 0;
    for (size_t i = 0; i < n; i++) wanted += item(k, x, i) * item(k, p, i), size += fabs(item(k, x, i) * item(k, p, i));
    switch (take(in, 8)) {
    case 0: CHECK(close_to(k, k->dot(n, x, p), wanted, size), "dot %g, wanted %g", k->dot(n, x, p), wanted); break;
    case 1: k->cg_update(n, alpha, x, p, y, r); break;
    case 2: k->cg_direction(n, alpha, x, y); break;
    case 3: k->axpy(n, alpha, x, y); break;
    case 4: k->scaled_copy(n, alpha, x, y); break;
    case 5: k->step_from(n, p, alpha, x, y); break;
    case 6: CHECK(k->all_finite(n, x) == finite_items(k, x, n), "all_finite of %zu", n); break;
    default: {
        const size_t many = take(in, 4);
        const void *Z = arena_constant(a, arena_values(a, in, many * n));
        const void *Q = take(in, 2) ? Z : arena_constant(a, arena_values(a, in, many * n));
        k->project_out(n, many, Z, Q, arena_take(a, many * sizeof(double), 0), r);
    }
    }
}

static void functions(input *in, arena *a, size_t n) {
    static const int all[] = {0,
                              1,
                              2,
                              3,
                              4,
                              5,
                              6,
                              7,
                              8,
                              TRPO_DERIVATIVE + 6,
                              TRPO_DERIVATIVE + 7,
                              TRPO_DERIVATIVE + 8,
                              TRPO_EXP,
                              TRPO_EXPM1,
                              TRPO_LOG,
                              TRPO_LOG1P,
                              TRPO_SINE_OF_TURNS,
                              TRPO_COSINE_OF_TURNS};
    const int function = all[take(in, sizeof all / sizeof all[0])];
    const void *x = arena_constant(a, arena_values(a, in, n));
    void *y = arena_take(a, n * a->k->item_size, 0);
    a->k->elementary(function, n, x, y);
    for (size_t i = 0; i < n; i++) {
        const double found = item(a->k, y, i), at = item(a->k, x, i);
        if (function == TRPO_TANH || function == TRPO_SIGMOID)
            CHECK(isnan(at) ? isnan(found) : fabs(found) <= 1, "%d of %g is %g", function, at, found);
        if (function == TRPO_EXP && fabs(at) < 80)
            CHECK(fabs(found - exp(at)) <= 4e-7 * exp(at), "exp(%g) is %g", at, found);
    }
}

static void rollouts(input *in, arena *a, size_t rows) {
    const trpo_kernels *k = a->k;
    const size_t columns = take(in, 80), n = rows * columns, bytes = n * k->item_size;
    const void *x = arena_constant(a, arena_values(a, in, n)), *v = arena_constant(a, arena_values(a, in, n));
    const int finite = finite_items(k, x, n);
    switch (take(in, 3)) {
    case 0: {
        const void *next = arena_constant(a, arena_values(a, in, n));
        uint8_t *ends = arena_take(a, n, 0), *cuts = arena_take(a, n, 0);
        for (size_t i = 0; i < n; i++) ends[i] = take(in, 16) == 1, cuts[i] = take(in, 16) == 1;
        void *returns = arena_take(a, bytes, 0), *advantages = arena_take(a, bytes, 0);
        const double gamma = (double)take(in, 256) / 255, lambda = (double)take(in, 256) / 255;
        k->gae(rows, columns, gamma, lambda, x, v, next, ends, cuts, advantages, returns);
        for (size_t i = n - (rows ? columns : 0); i < n; i++) /* the last step: A = delta */
            if (ends[i] && isfinite(item(k, x, i)) && isfinite(item(k, v, i)))
                CHECK(item(k, advantages, i) == rounded(k, item(k, x, i) - item(k, v, i)), "advantage %zu", i);
        break;
    }
    case 1: {
        void *y = arena_values(a, in, n);
        double mean, std;
        k->standardize(n, y, &mean, &std);
        CHECK(std >= 0 || isnan(std), "std %g", std);
        break;
    }
    default: {
        double *mean = arena_take(a, columns * sizeof(double), 0), *m2 = arena_take(a, columns * sizeof(double), 0);
        memset(mean, 0, columns * sizeof(double)), memset(m2, 0, columns * sizeof(double));
        const size_t found = k->merge_moments(rows, columns, x, (double)take(in, 256), mean, m2);
        CHECK((found == 0) == finite, "merge_moments found %zu", found);
        for (size_t i = 0; found && i < found - 1; i++) CHECK(isfinite(item(k, x, i)), "%zu is before %zu", i, found);
        if (found) CHECK(!isfinite(item(k, x, found - 1)), "%zu is finite", found - 1);
        for (size_t j = 0; found && j < columns; j++) CHECK(mean[j] == 0 && m2[j] == 0, "column %zu", j);
    }
    }
}

static void random_numbers(input *in, arena *a, size_t n) {
    const trpo_random_key key = {
        .seed = take(in, SIZE_MAX), .stream = (uint32_t)take(in, 256), .step = take(in, 1ull << 56)};
    double *draws = arena_take(a, n * sizeof(double), 0), *normal = arena_take(a, n * sizeof(double), 0);
    int64_t *order = arena_take(a, n * sizeof(int64_t), 0);
    uint8_t *seen = arena_take(a, n, 0);
    trpo_random_uniform(&key, (uint32_t)take(in, UINT32_MAX), (int)n, draws);
    trpo_random_normal(&key, (uint32_t)take(in, UINT32_MAX), (int)n, normal);
    trpo_random_permutation(&key, (int64_t)n, order);
    memset(seen, 0, n);
    for (size_t i = 0; i < n; i++) {
        CHECK(draws[i] > 0 && draws[i] <= 1 && fabs(normal[i]) < 9, "%g, %g", draws[i], normal[i]);
        CHECK(order[i] >= 0 && (size_t)order[i] < n && !seen[order[i]], "%zu of the order", i);
        seen[order[i]] = 1;
    }
    void *noise = arena_values(a, in, n);
    const size_t columns = 1 + take(in, 7), rows = n / columns;
    const void *means = arena_constant(a, arena_values(a, in, rows * columns));
    const void *log_std = arena_constant(a, arena_values(a, in, columns));
    a->k->gaussian_actions(rows, columns, means, log_std, noise, arena_take(a, rows * a->k->item_size, 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const kinds[])(input *, arena *, size_t) = {vectors, functions, rollouts, random_numbers};
    input in = {data, size};
    arena a = {.k = take_table(&in)};
    void (*const kind)(input *, arena *, size_t) = kinds[take(&in, 4)];
    kind(&in, &a, take(&in, 140));
    arena_close(&a);
    return 0;
}
