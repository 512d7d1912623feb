/* Kronecker factors: statistics against plain sums in double, inverses against the identity, products against the dense
 * block. Sizes lie around vector lengths and panels; buffers are exact, so the sanitizers check every kernel's reach. */
#include "policy_fixture.h"

static const size_t sizes[] = {1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100};

/* A plan of one layer without bias and its buffers. */
typedef struct {
    trpo_kronecker plan;
    void *factors, *work, *diagonal, *product_work;
} single;

static single single_make(const trpo_kernels *k, size_t inputs, size_t outputs, int bias) {
    single s = {.plan = {.layers = 1, .size = outputs * (inputs + (bias != 0))}};
    s.plan.layer[0].inputs = inputs;
    s.plan.layer[0].outputs = outputs;
    s.plan.layer[0].bias = bias ? outputs * inputs : TRPO_NO_BIAS;
    k->kronecker_plan(&s.plan);
    const trpo_kronecker_workspace w = trpo_kronecker_workspace_for(&s.plan, k->item_size);
    s.factors = calloc(1, w.factors.bytes);
    s.diagonal = calloc(1, w.diagonal.bytes);
    s.work = malloc(s.plan.invert_items * k->item_size);
    s.product_work = malloc(w.work.bytes);
    return s;
}

static void single_free(single *s) { free(s->factors), free(s->work), free(s->diagonal), free(s->product_work); }

/* matrix = X'X / rows, X rows x n of noise: of rank min(rows, n). */
static void moment(const trpo_kernels *k, size_t n, size_t ld, size_t rows, uint64_t seed, void *factors, size_t at) {
    void *X = random_values(k, rows * n, 1, seed);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t r = 0; r < rows; r++) sum += item(k, X, r * n + i) * item(k, X, r * n + j);
            set_item(k, factors, at + i * ld + j, sum / (double)rows);
        }
    free(X);
}

static void inversions(const trpo_kernels *k) {
    const double tolerance = k->item_size == sizeof(float) ? 1e-3 : 1e-11;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t n = sizes[s];
        single one = single_make(k, n, 1, 0);
        const trpo_kronecker_layer *layer = &one.plan.layer[0];
        moment(k, n, layer->input_pad, 3 * n, n, one.factors, layer->A);
        double *A = malloc(n * n * sizeof(double));
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) A[i * n + j] = item(k, one.factors, i * layer->input_pad + j);
        set_item(k, one.factors, layer->G, 1);
        double mean = 0;
        for (size_t i = 0; i < n; i++) mean += A[i * n + i] / (double)n;
        const double root = sqrt(0.1 / mean); /* of the damping, in units of the mean diagonals */
        CHECK(k->kronecker_invert(&one.plan, one.factors, 0.1, 1, one.work, 1) == -1, "%s n %zu", k->isa, n);
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < n; j++) {
                double sum = mean * root * item(k, one.factors, i * layer->input_pad + j);
                for (size_t l = 0; l < n; l++) sum += A[i * n + l] * item(k, one.factors, l * layer->input_pad + j);
                CHECK(fabs(sum - (i == j)) < tolerance, "%s n %zu (%zu, %zu): %g", k->isa, n, i, j, sum);
                CHECK(item(k, one.factors, i * layer->input_pad + j) == item(k, one.factors, j * layer->input_pad + i),
                      "%s n %zu", k->isa, n);
            }
            for (size_t j = n; j < layer->input_pad; j++)
                CHECK(item(k, one.factors, i * layer->input_pad + j) == 0, "%s n %zu", k->isa, n);
        }
        free(A);
        single_free(&one);
    }
}

/* Fewer samples than columns, one sample, none: an inverse without any damping. Indefinite and non-finite: named. */
static void singular(const trpo_kernels *k) {
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t rows = 1; rows <= 5; rows += 2) {
            const size_t n = sizes[s];
            single one = single_make(k, n, 3, 0);
            const trpo_kronecker_layer *layer = &one.plan.layer[0];
            moment(k, n, layer->input_pad, rows, n, one.factors, layer->A);
            moment(k, 3, layer->output_pad, rows, n, one.factors, layer->G);
            CHECK(k->kronecker_invert(&one.plan, one.factors, 0, 0.15, one.work, 1) == -1, "%s n %zu", k->isa, n);
            for (size_t i = 0; i < n; i++) {
                const double x = item(k, one.factors, layer->A + i * layer->input_pad + i);
                CHECK(isfinite(x) && x > 0, "%s n %zu: %g", k->isa, n, x);
            }
            moment(k, n, layer->input_pad, 2 * n, n, one.factors, layer->A);
            memset((char *)one.factors + layer->G * k->item_size, 0, 3 * layer->output_pad * k->item_size);
            CHECK(k->kronecker_invert(&one.plan, one.factors, 0.25, 0.15, one.work, 1) == -1, "%s n %zu", k->isa, n);
            CHECK(item(k, one.factors, layer->A) * item(k, one.factors, layer->G) == 4, "%s n %zu", k->isa, n);
            moment(k, n, layer->input_pad, 2 * n, n, one.factors, layer->A);
            moment(k, 3, layer->output_pad, 6, n, one.factors, layer->G);
            set_item(k, one.factors, layer->G + layer->output_pad + 1, -0.1);
            CHECK(k->kronecker_invert(&one.plan, one.factors, 0, 0.15, one.work, 1) == 1, "%s n %zu", k->isa, n);
            moment(k, 3, layer->output_pad, 6, n, one.factors, layer->G);
            moment(k, n, layer->input_pad, 2 * n, n, one.factors, layer->A);
            set_item(k, one.factors, layer->A + (n / 2) * layer->input_pad + n / 2, NAN);
            CHECK(k->kronecker_invert(&one.plan, one.factors, 0.1, 0.15, one.work, 1) == 0, "%s n %zu", k->isa, n);
            single_free(&one);
        }
}

static void products(const trpo_kernels *k) {
    const double tolerance = k->item_size == sizeof(float) ? 1e-5 : 1e-13;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t inputs = sizes[s], outputs = sizes[(s * 7 + 3) % (sizeof sizes / sizeof sizes[0])];
        const int bias = s % 2;
        single one = single_make(k, inputs, outputs, bias);
        const trpo_kronecker_layer *layer = &one.plan.layer[0];
        const size_t a = layer->input_size, n = one.plan.size;
        moment(k, a, layer->input_pad, 2 * a, 1, one.factors, layer->A);
        moment(k, outputs, layer->output_pad, 2 * outputs, 2, one.factors, layer->G);
        void *v = random_values(k, n, 1, 3), *out = malloc(n * k->item_size), *again = malloc(n * k->item_size);
        double *expected = malloc(n * sizeof(double));
        for (size_t o = 0; o < outputs; o++)
            for (size_t i = 0; i < a; i++) {
                double sum = 0;
                for (size_t p = 0; p < outputs; p++)
                    for (size_t j = 0; j < a; j++)
                        sum += item(k, one.factors, layer->G + o * layer->output_pad + p) *
                               item(k, v, j < inputs ? p * inputs + j : outputs * inputs + p) *
                               item(k, one.factors, layer->A + j * layer->input_pad + i);
                expected[i < inputs ? o * inputs + i : outputs * inputs + o] = sum;
            }
        k->kronecker_apply(&one.plan, one.factors, one.diagonal, v, out, one.product_work, 1);
        CHECK(relative_error(k, out, expected, n) < tolerance, "%s %zu x %zu", k->isa, outputs, a);
        k->kronecker_apply(&one.plan, one.factors, one.diagonal, v, again, one.product_work, 3);
        CHECK(memcmp(out, again, n * k->item_size) == 0, "%s %zu x %zu", k->isa, outputs, a);
        free(v), free(out), free(again), free(expected);
        single_free(&one);
    }
}

/* A of every layer against plain sums over the chosen rows; every distribution's G is finite and scaled by total. */
static void statistics(const trpo_kernels *k) {
    static const size_t widths[][5] = {{3, 2}, {17, 64, 33, 6}, {16, 15, 31, 8}};
    static const int layers[] = {1, 3, 3};
    const double tolerance = k->item_size == sizeof(float) ? 1e-5 : 1e-13;
    for (int distribution = TRPO_GAUSSIAN; distribution <= TRPO_PRODUCT; distribution++)
        for (size_t shape = 0; shape < 3; shape++)
            for (size_t rows = 1; rows < 500; rows = 3 * rows + 2) {
                fixture f;
                fixture_make(&f, k, layers[shape], widths[shape], TRPO_TANH, (trpo_distribution)distribution,
                             distribution != TRPO_GAUSSIAN && shape == 2, rows, 2);
                trpo_kronecker plan = {.layers = layers[shape], .size = f.parameters};
                for (int l = 0; l < plan.layers; l++) {
                    plan.layer[l].inputs = widths[shape][l];
                    plan.layer[l].outputs = widths[shape][l + 1];
                }
                k->kronecker_plan(&plan);
                const size_t chosen = (rows + 1) / 2;
                int64_t *index = malloc(chosen * sizeof(int64_t));
                for (size_t i = 0; i < chosen; i++) index[i] = (int64_t)(2 * i);
                trpo_kfac_sample sample = {
                    .batch = &f.batch, .plan = &plan, .rows = index, .count = chosen, .input_step = 1, .score_step = 3};
                const trpo_kfac_workspace w = trpo_kfac_workspace_for(&sample, k->item_size, 2);
                sample.blocks = w.blocks, sample.threads = w.threads;
                sample.sums = malloc(w.sums.bytes), sample.scratch = malloc(w.scratch.bytes);
                void *factors = calloc(plan.factor_items, k->item_size);
                k->kfac_statistics(&sample, factors);
                for (int l = 0; l < plan.layers; l++) {
                    const trpo_kronecker_layer *layer = &plan.layer[l];
                    const size_t ld = l ? f.plan.padded[l] : layer->inputs;
                    const void *x = l ? f.batch.cache.activations : f.batch.problem.observations;
                    const size_t tile_items = trpo_tile_items(&f.plan, f.batch.problem.layout.distribution);
                    size_t *at = malloc(chosen * sizeof(size_t));
                    for (size_t r = 0; r < chosen; r++)
                        at[r] = l ? 2 * r / TRPO_TILE_ROWS * tile_items + TRPO_TILE_ROWS * f.plan.activation_column[l] +
                                        2 * r % TRPO_TILE_ROWS * ld
                                  : 2 * r * ld;
                    for (size_t i = 0; i <= layer->inputs; i++)
                        for (size_t j = 0; j <= layer->inputs; j++) {
                            double sum = 0;
                            for (size_t r = 0; r < chosen; r++)
                                sum += (i < layer->inputs ? item(k, x, at[r] + i) : 1) *
                                       (j < layer->inputs ? item(k, x, at[r] + j) : 1);
                            sum /= (double)chosen;
                            const double found = item(k, factors, layer->A + i * layer->input_pad + j);
                            CHECK(fabs(found - sum) < tolerance * 10, "%s layer %d: %g, wanted %g", k->isa, l, found,
                                  sum);
                        }
                    free(at);
                    for (size_t i = 0; i < layer->outputs; i++)
                        CHECK(item(k, factors, layer->G + i * layer->output_pad + i) >= 0, "%s layer %d", k->isa, l);
                }
                free(index), free(sample.sums), free(sample.scratch), free(factors);
                fixture_free(&f);
            }
}

static void partial_sums_take_bounded_memory(void) {
    const size_t sizes[] = {1, 5000, 70000, TRPO_KFAC_SUM_ITEMS / 3, TRPO_KFAC_SUM_ITEMS, 10 * TRPO_KFAC_SUM_ITEMS};
    for (int i = 0; i < 6; i++) {
        const int blocks = trpo_kfac_block_count(1000000, sizes[i]);
        CHECK(blocks == 1 || (size_t)blocks * sizes[i] <= TRPO_KFAC_SUM_ITEMS, "%zu: %d", sizes[i], blocks);
        CHECK(blocks >= 1 && (i > 1 || blocks == TRPO_MAX_BLOCKS / 2), "%zu: %d", sizes[i], blocks);
    }
}

int main(void) {
    partial_sums_take_bounded_memory();
    for_every_table(inversions);
    for_every_table(singular);
    for_every_table(products);
    for_every_table(statistics);
    return 0;
}
