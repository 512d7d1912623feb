/* bf16 products: every layout, tail and epilogue against double, Fisher products against the exact ones, for this CPU's
 * instruction where it has one, for the portable kernels, and for these with longer vectors, on x86-64 AVX-512's. */
#define TRPO_BFLOAT16_NAME "wide"
#define TRPO_BFLOAT16_KERNELS wide_kernels
#if defined(__x86_64__)
#define TRPO_VECTOR_BYTES 64
#else
#define TRPO_VECTOR_BYTES 32
#endif
#define TRPO_MR 6
#define TRPO_NV 4
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors longer than registers: they are in no function's interface */
#include "../kernels/bfloat16_portable.h"

#include "policy_fixture.h"

typedef struct trpo_bfloat16_kernels kernels16;

static double widened(uint32_t bits) {
    float x;
    bits <<= 16;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}
static double lower(trpo_bfloat16_pair pair) { return widened(pair & 0xffff); }
static double upper(trpo_bfloat16_pair pair) { return widened(pair >> 16); }

/* The nearest of both neighbours, and of two as near the one whose last bit is 0; found by looking. */
static double nearest(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const double below = widened(bits >> 16), above = widened((bits >> 16) + 1);
    const double down = fabs((double)x - below), up = fabs((double)x - above);
    if (down != up) return down < up ? below : above;
    return (bits >> 16) % 2 ? above : below;
}

static void test_rounding_is_to_the_nearest_and_ties_go_to_even(void) {
    const double ulp = 1.0 / 128;
    const double cases[][2] = {{1, 1},
                               {1 + 0.49 * ulp, 1},
                               {1 + 0.5 * ulp, 1},
                               {1 + 1.5 * ulp, 1 + 2 * ulp},
                               {-1 - 0.51 * ulp, -1 - ulp},
                               {2 - 0.25 * ulp, 2},
                               {0, 0},
                               {INFINITY, INFINITY},
                               {-INFINITY, -INFINITY},
                               {3.4e38, INFINITY}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK(widened(bfloat16_of((float)cases[i][0])) == cases[i][1], "%g", cases[i][0]);
    CHECK(isnan(widened(bfloat16_of(NAN))), "a NaN is lost");
    const uint32_t last = 0x7f800001; /* whose upper half alone would be infinity */
    float signalling;
    memcpy(&signalling, &last, sizeof last);
    CHECK(isnan(widened(bfloat16_of(signalling))), "a NaN became infinite");
}

static float *floats(size_t n, uint64_t seed) { return random_values(trpo_kernels_for(TRPO_FLOAT32), n, 1, seed); }

static void *exactly(size_t bytes) {
    void *block = malloc(bytes ? bytes : 1); /* so that a sanitizer sees each overrun */
    memset(block, 0xff, bytes);
    return block;
}

static void narrowing(const kernels16 *k, size_t rows, size_t columns) {
    const size_t ldm = columns + 3, along_pairs = (columns + 1) / 2, down_pairs = (rows + 1) / 2;
    float *m = floats(rows * ldm, rows + 7 * columns);
    trpo_bfloat16_pair *along = exactly(rows * along_pairs * 4), *down = exactly(down_pairs * columns * 4);
    k->narrow(rows, columns, m, ldm, along, down, columns);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < 2 * along_pairs; c++) {
            const trpo_bfloat16_pair pair = along[r * along_pairs + c / 2];
            const double wanted = c < columns ? nearest(m[r * ldm + c]) : 0;
            CHECK((c % 2 ? upper : lower)(pair) == wanted, "%s along %zu %zu", k->name, r, c);
        }
    for (size_t r = 0; r < 2 * down_pairs; r++)
        for (size_t c = 0; c < columns; c++) {
            const double wanted = r < rows ? nearest(m[r * ldm + c]) : 0;
            CHECK((r % 2 ? upper : lower)(down[r / 2 * columns + c]) == wanted, "%s down %zu %zu", k->name, r, c);
        }
    free(m), free(along), free(down);
}

/* y = x b, with both ways that b is stored in, a second pair of operands, and each epilogue. */
static void multiplying(const kernels16 *k, size_t rows, size_t depth, size_t n, epilogue_kind_bf16 epilogue,
                        int packed) {
    const size_t v = k->vector_items, columns = (n + v - 1) / v * v + (n % 3) * v, pairs = (depth + 1) / 2;
    const int pair_count = packed ? 2 : 1;
    float *x[2], *b[2], *bias = floats(columns, 5), *y = floats(rows * columns, 6), *a = floats(rows * columns, 8);
    trpo_bfloat16_pair *x16[2] = {NULL, NULL}, *b16[2] = {NULL, NULL};
    double *wanted = malloc(rows * columns * sizeof(double)), *size = malloc(rows * columns * sizeof(double));
    for (size_t i = 0; i < rows * columns; i++) wanted[i] = (double)bias[i % columns], size[i] = fabs(wanted[i]);
    for (int i = 0; i < pair_count; i++) {
        const uint64_t seed = 100 * (uint64_t)i + rows + 3 * depth + 5 * n;
        x[i] = floats(rows * depth, seed), b[i] = floats(depth * columns, seed + 1);
        x16[i] = exactly(rows * pairs * 4), b16[i] = exactly(columns * pairs * 4);
        k->narrow(rows, depth, x[i], depth, x16[i], NULL, 0);
        if (packed)
            k->pack_panels(depth, n, columns, b[i], columns, 1, b16[i]);
        else
            k->narrow(depth, columns, b[i], columns, NULL, b16[i], columns);
        for (size_t r = 0; r < rows; r++)
            for (size_t c = 0; c < columns; c++)
                for (size_t j = 0; j < depth && (!packed || c < n); j++) {
                    const double term = nearest(x[i][r * depth + j]) * nearest(b[i][j * columns + c]);
                    wanted[r * columns + c] += term, size[r * columns + c] += fabs(term);
                }
    }
    const product_bf16 p = {.row_stride = pairs,
                            .k_stride = 1,
                            .k1 = pairs,
                            .x1 = x16[0],
                            .b1 = b16[0],
                            .k2 = packed ? pairs : 0,
                            .x2 = x16[1],
                            .b2 = b16[1],
                            .ldb = packed ? 0 : columns,
                            .bias = bias,
                            .y = y,
                            .ldy = columns,
                            .epilogue = epilogue,
                            .activation = TRPO_TANH,
                            .a = a};
    for (size_t i = 0; i < rows * columns; i++) {
        if (epilogue == ADD_bf16) wanted[i] += (double)y[i];
        const double slope = 1 - (double)a[i] * (double)a[i];
        if (epilogue == TIMES_DERIVATIVE_bf16) wanted[i] *= slope, size[i] *= fabs(slope);
    }
    k->multiply(&p, rows, columns);
    for (size_t i = 0; i < rows * columns; i++)
        CHECK(fabs((double)y[i] - wanted[i]) <= 3e-6 * (1 + size[i]), "%s %zu x %zu x %zu: %g, wanted %g", k->name,
              rows, depth, n, (double)y[i], wanted[i]);
    for (int i = 0; i < pair_count; i++) free(x[i]), free(b[i]), free(x16[i]), free(b16[i]);
    free(bias), free(y), free(a), free(wanted), free(size);
}

static void kernels(const kernels16 *k) {
    static const size_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 12, 13, 15, 16, 17, 31, 33, 64, 71, 97};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    for (size_t i = 0; i < SIZES; i++)
        for (size_t j = 0; j < SIZES; j++) {
            narrowing(k, sizes[i], sizes[j]);
            for (size_t d = (i + j) % 3; d < SIZES; d += 3) {
                const epilogue_kind_bf16 epilogue = (epilogue_kind_bf16)((i + j + d) % 3);
                multiplying(k, sizes[i], sizes[d], sizes[j], epilogue, (int)((i + d) % 2));
            }
        }
    CHECK(trpo_bfloat16_multiply_adds(k, 10, 1) >= 4 * 12 * (double)k->vector_items * 10, "too few operations");
}

/* ---- Fisher products ---- */

static const size_t shapes[][7] = {
    {1, 3, 2}, {1, 20, 17}, {2, 5, 7, 1}, {3, 17, 64, 64, 6}, {3, 4, 33, 15, 2}, {5, 6, 9, 17, 33, 5, 9},
};
static const size_t batches[] = {1, 5, 96, 97, 400};

static void fisher(const kernels16 *narrow, const size_t *shape, size_t rows, trpo_activation activation,
                   trpo_distribution distribution, int masked) {
    const trpo_kernels *k = trpo_kernels_for(TRPO_FLOAT32), *reference = trpo_kernels_for(TRPO_FLOAT64);
    fixture f, g;
    fixture_make(&f, k, (int)shape[0], shape + 1, activation, distribution, masked, rows, 2);
    fixture_make(&g, reference, (int)shape[0], shape + 1, activation, distribution, masked, rows, 1);
    const size_t n = f.parameters;
    void *d = random_values(reference, n, 1 / sqrt((double)n), 21), *v = malloc(n * sizeof(float));
    void *product = malloc(n * sizeof(float)), *again = malloc(n * sizeof(float));
    double *exact = malloc(n * sizeof(double));
    for (size_t i = 0; i < n; i++) set_item(k, v, i, item(reference, d, i));
    reference->policy_fisher(&g.batch, d, exact);

    const trpo_bfloat16_workspace w = trpo_bfloat16_workspace_for(&f.plan, f.batch.work.threads);
    f.batch.bfloat16 = (trpo_policy_bfloat16){.kernels = narrow,
                                              .weights = exactly(w.weights.bytes),
                                              .trial = exactly(w.trial.bytes),
                                              .scratch = exactly(w.scratch.bytes),
                                              .threads = w.threads};
    k->policy_narrow(&f.batch);
    k->policy_fisher_narrow(&f.batch, v, product);
    const double error = relative_error(k, product, exact, n);
    /* roundings of 2^-9, and more where terms cancel */
    CHECK(error < 6e-2, "%s %s rows %zu: %g", k->isa, narrow->name, rows, error);

    memset(f.batch.bfloat16.scratch, 0xff, w.scratch.bytes);
    f.batch.work.threads = 1;
    k->policy_fisher_narrow(&f.batch, v, again);
    CHECK(memcmp(product, again, n * sizeof(float)) == 0, "%s: another number of threads, other bits", narrow->name);
    f.batch.cache.tiles = 0; /* activations are computed again */
    k->policy_fisher_narrow(&f.batch, v, again);
    CHECK(memcmp(product, again, n * sizeof(float)) == 0, "%s: without cached activations, other bits", narrow->name);

    free(f.batch.bfloat16.weights), free(f.batch.bfloat16.trial), free(f.batch.bfloat16.scratch);
    free(d), free(v), free(product), free(again), free(exact);
    fixture_free(&f), fixture_free(&g);
}

static void policies(const kernels16 *narrow) {
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t r = 0; r < sizeof batches / sizeof batches[0]; r++) {
            if (under_memcheck() && (batches[r] == 96 || batches[r] > 97)) continue;
            const trpo_activation activation = (trpo_activation)(1 + (s + r) % 8);
            fisher(narrow, shapes[s], batches[r], activation, TRPO_GAUSSIAN, 0);
            for (int masked = 0; masked < 2; masked++) {
                fisher(narrow, shapes[s], batches[r], activation, TRPO_BERNOULLI, masked);
                fisher(narrow, shapes[s], batches[r], activation, TRPO_CATEGORICAL, masked);
                fisher(narrow, shapes[s], batches[r], activation, TRPO_PRODUCT, masked);
            }
        }
}

int main(void) {
    test_rounding_is_to_the_nearest_and_ties_go_to_even();
    CHECK(trpo_bfloat16_kernels_for("none of these") == NULL, "kernels of an unknown name");
    const kernels16 *portable = trpo_bfloat16_kernels_for("portable");
    CHECK(portable && strcmp(trpo_bfloat16_name(portable), "portable") == 0, "no portable kernels");
    kernels(portable);
    kernels(&wide_kernels);
    trpo_set_threads(TRPO_MAX_THREADS);
    for (int i = 0; trpo_available_isa(i); i++) {
        CHECK(trpo_dispatch(trpo_available_isa(i)) == 0, "%s", trpo_available_isa(i));
        const trpo_kernels *k = trpo_kernels_for(TRPO_FLOAT32);
        CHECK(trpo_kernels_for(TRPO_FLOAT64)->policy_fisher_narrow == NULL, "%s has such products in double", k->isa);
        policies(portable);
        if (k->vector_items % wide_kernels.vector_items == 0) policies(&wide_kernels);
        const kernels16 *own = trpo_bfloat16_kernels_for(NULL);
        if (!own) continue;
        CHECK(own->vector_items == k->vector_items, "%s for %s", own->name, k->isa);
        kernels(own);
        policies(own);
        printf("%s: %s\n", k->isa, own->name);
    }
    return 0;
}
