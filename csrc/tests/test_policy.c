/* Gradient and Fisher products against finite differences in double, single precision against double, for odd and even
 * shapes; acting. Buffers are exact, so the sanitizers check every kernel's reach. */
#include "policy_fixture.h"

static const size_t shapes[][7] = {
    /* layers, widths: without and with hidden layers, thin, wide, around the vector lengths */
    {1, 3, 2},
    {1, 20, 17},
    {2, 5, 7, 1},
    {3, 17, 64, 64, 6},
    {3, 4, 33, 15, 2},
    {4, 9, 16, 8, 31, 3},
    /* more outputs than are contracted together, and layers below whose Jacobians are made from Jacobians */
    {3, 5, 20, 12, 19},
    {5, 6, 9, 17, 33, 5, 9},
};
static const size_t batches[] = {1, 5, 96, 97, 400};

static void step_along(const trpo_kernels *k, const void *theta, double size, const void *d, size_t n, void *out) {
    for (size_t i = 0; i < n; i++) set_item(k, out, i, item(k, theta, i) + size * item(k, d, i));
}

static double kl_at(const trpo_kernels *k, fixture *f, double size, const void *d, void *trial,
                    trpo_kl_direction direction, double *improvement) {
    double kl;
    step_along(k, f->batch.problem.parameters, size, d, f->parameters, trial);
    k->policy_evaluate(&f->batch, trial, direction, improvement, &kl);
    return kl;
}

/* The same product with cached output Jacobians, to the same bits on one thread. product: left as it was. */
static void with_jacobians(const trpo_kernels *k, fixture *f, const void *v, const double *exact, double tolerance,
                           const void *product) {
    const size_t items = trpo_policy_jacobian_items(&f->batch), bytes = f->parameters * k->item_size;
    CHECK((items > 0) == (f->plan.layers > 2), "%zu items for %d layers", items, f->plan.layers);
    if (items == 0) return;
    void *jacobians = malloc(items * k->item_size), *first = malloc(items * k->item_size);
    void *with = malloc(bytes), *again = malloc(bytes);
    const int threads = f->batch.work.threads;
    memset(jacobians, 0xff, items * k->item_size); /* what is not written is NaN */
    f->batch.cache.jacobians = jacobians;
    k->policy_jacobians(&f->batch);
    k->policy_fisher(&f->batch, v, with);
    CHECK(relative_error(k, with, exact, f->parameters) < tolerance, "%s rows %zu: %g", k->isa, f->batch.problem.rows,
          relative_error(k, with, exact, f->parameters));
    memcpy(first, jacobians, items * k->item_size);
    f->batch.work.threads = 1;
    k->policy_jacobians(&f->batch);
    k->policy_fisher(&f->batch, v, again);
    CHECK(memcmp(first, jacobians, items * k->item_size) == 0 && memcmp(with, again, bytes) == 0, "%s", k->isa);
    f->batch.work.threads = threads;
    f->batch.cache.jacobians = NULL;
    k->policy_fisher(&f->batch, v, again);
    CHECK(memcmp(product, again, bytes) == 0, "%s: a product without Jacobians", k->isa);
    /* where activations are not kept there is nowhere for them */
    const size_t tiles = f->batch.cache.tiles;
    f->batch.cache.tiles = tiles - 1;
    CHECK(trpo_policy_jacobian_items(&f->batch) == 0, "%zu tiles", tiles);
    f->batch.cache.tiles = tiles;
    free(jacobians), free(first), free(with), free(again);
}

static void derivatives(const trpo_kernels *k, const trpo_kernels *reference, const size_t *shape, size_t rows,
                        trpo_activation activation, trpo_distribution distribution, int masked) {
    fixture f, g;
    fixture_make(&f, k, (int)shape[0], shape + 1, activation, distribution, masked, rows, 2);
    fixture_make(&g, reference, (int)shape[0], shape + 1, activation, distribution, masked, rows, 1);
    const size_t n = f.parameters;
    void *d = random_values(reference, n, 1 / sqrt((double)n), 21), *trial = malloc(n * sizeof(double));
    double improvement, other;

    void *gradient = malloc(n * k->item_size), *product = malloc(n * k->item_size);
    void *v = malloc(n * k->item_size);
    double *exact = malloc(n * sizeof(double)), *exact_product = malloc(n * sizeof(double));
    for (size_t i = 0; i < n; i++) set_item(k, v, i, item(reference, d, i));
    /* at theta_old, exactly nothing has changed */
    CHECK(kl_at(k, &f, 0, v, trial, TRPO_KL_NEW_OLD, &improvement) == 0 && improvement == 0, "%s", k->isa);
    k->policy_gradient(&f.batch, gradient);
    k->policy_fisher(&f.batch, v, product);
    reference->policy_gradient(&g.batch, exact);
    reference->policy_fisher(&g.batch, d, exact_product);
    const double tolerance = k->item_size == sizeof(float) ? 2e-5 : 1e-13;
    CHECK(relative_error(k, gradient, exact, n) < tolerance, "%s rows %zu: %g", k->isa, rows,
          relative_error(k, gradient, exact, n));
    CHECK(relative_error(k, product, exact_product, n) < tolerance, "%s rows %zu: %g", k->isa, rows,
          relative_error(k, product, exact_product, n));

    with_jacobians(k, &f, v, exact_product, tolerance, product);

    if (activation != TRPO_RELU && activation != TRPO_LEAKY_RELU) { /* kinks spoil differences */
        const double h = 1e-5;
        double slope = 0, curvature = 0;
        kl_at(reference, &g, h, d, trial, TRPO_KL_NEW_OLD, &improvement);
        kl_at(reference, &g, -h, d, trial, TRPO_KL_NEW_OLD, &other);
        for (size_t i = 0; i < n; i++) slope += exact[i] * item(reference, d, i);
        for (size_t i = 0; i < n; i++) curvature += exact_product[i] * item(reference, d, i);
        CHECK(fabs((improvement - other) / (2 * h) - slope) < 1e-6 * (1 + fabs(slope)), "slope %g", slope);
        for (int direction = TRPO_KL_NEW_OLD; direction <= TRPO_KL_OLD_NEW; direction++) {
            const double s = 1e-4;
            const double plus = kl_at(reference, &g, s, d, trial, (trpo_kl_direction)direction, &other);
            const double minus = kl_at(reference, &g, -s, d, trial, (trpo_kl_direction)direction, &other);
            /* a single choice in every row has no curvature, and no KL */
            CHECK(curvature > 0 ? plus > 0 && minus > 0 : plus == 0 && minus == 0, "KL %g %g", plus, minus);
            CHECK(fabs((plus + minus) / (s * s) - curvature) <= 1e-4 * curvature, "curvature %g, differences %g",
                  curvature, (plus + minus) / (s * s));
        }
    }
    free(d), free(trial), free(gradient), free(product), free(v), free(exact), free(exact_product);
    fixture_free(&f), fixture_free(&g);
}

static void policies(const trpo_kernels *k) {
    const trpo_kernels *reference = trpo_kernels_for(TRPO_FLOAT64);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t r = 0; r < sizeof batches / sizeof batches[0]; r++) {
            if (under_memcheck() && (batches[r] == 96 || batches[r] > 97)) continue;
            const trpo_activation activation = (trpo_activation)(1 + (s + r) % 8);
            derivatives(k, reference, shapes[s], batches[r], activation, TRPO_GAUSSIAN, 0);
            for (int masked = 0; masked < 2; masked++) {
                derivatives(k, reference, shapes[s], batches[r], activation, TRPO_BERNOULLI, masked);
                derivatives(k, reference, shapes[s], batches[r], activation, TRPO_CATEGORICAL, masked);
                derivatives(k, reference, shapes[s], batches[r], activation, TRPO_PRODUCT, masked);
            }
        }
}

/* The log-probability written while acting is, bit for bit, the one recomputed when the batch is bound. */
static void acting(const trpo_kernels *k) {
    enum { ROWS = 101 };
    const size_t widths[] = {5, 33, 16, 4};
    for (int kind = 0; kind < 7; kind++) {
        const trpo_distribution distribution = kind < 5 ? (trpo_distribution)(kind % 3) : TRPO_PRODUCT;
        fixture f;
        const trpo_activation activation = (trpo_activation)(kind == 0 ? TRPO_TANH : TRPO_SILU + (kind - 1) % 3);
        fixture_make(&f, k, 3, widths, activation, distribution, kind == 3 || kind == 4 || kind == 6, ROWS, 1);
        const trpo_action_layout *layout = &f.batch.problem.layout;
        const size_t m = layout->components, count = ROWS * m;
        void *normalized = malloc(ROWS * 5 * k->item_size), *log_probs = malloc(ROWS * k->item_size);
        void *actions = malloc(count * sizeof(double)), *env_actions = malloc(count * sizeof(double));
        const double low[4] = {-0.5, -0.5, -0.5, -0.5}, high[4] = {0.5, 0.5, 0.5, 0.5};
        const double part_high[4] = {INFINITY, 0.5, INFINITY, 0.5};
        const double part_low[4] = {-INFINITY, -0.5, -INFINITY, -0.5}; /* a choice, a mean, 0 or 1, a mean */
        const int64_t start[4] = {3, -1, 0, 7};
        trpo_actor actor = {.network = &f.plan,
                            .layout = *layout,
                            .log_std = f.batch.problem.parameters,
                            .clip = INFINITY,
                            .low = distribution == TRPO_PRODUCT ? part_low : low,
                            .high = distribution == TRPO_PRODUCT ? part_high : high,
                            .start = start,
                            .key = {.seed = 1}};
        size_t bad_row = 0;
        const int is_double = k->item_size == sizeof(double);
        for (actor.deterministic = 0; actor.deterministic < 2; actor.deterministic++) {
            CHECK(k->act(&actor, f.batch.cache.forward, ROWS, f.batch.problem.observations, is_double,
                         f.batch.problem.masks, 0, normalized, actions, log_probs, env_actions, 1, f.batch.work.scratch,
                         f.batch.work.threads, &bad_row) == TRPO_ACT_OK,
                  "%s row %zu", k->isa, bad_row);
            f.batch.problem.actions = actions;
            k->policy_bind(&f.batch);
            for (size_t i = 0; i < ROWS; i++)
                CHECK(item(k, log_probs, i) == rounded(k, f.batch.cache.log_probs[i]), "%s row %zu", k->isa, i);
            const uint8_t *mask = f.batch.problem.masks;
            for (size_t i = 0; i < count; i++) {
                if (distribution == TRPO_GAUSSIAN) {
                    CHECK(fabs(((double *)env_actions)[i]) <= 0.5, "item %zu", i);
                    continue;
                }
                if (distribution == TRPO_PRODUCT) {
                    const double sent = ((double *)env_actions)[i], drawn = item(k, actions, i);
                    const size_t of = fixture_choices(layout, i % m);
                    if (of == 0) CHECK(sent == fmin(fmax(drawn, -0.5), 0.5), "%s item %zu: %g", k->isa, i, sent);
                    if (of == 0) continue;
                    CHECK(sent == drawn && drawn == floor(drawn) && drawn >= 0 && drawn < (double)of, "item %zu: %g", i,
                          drawn);
                    if (mask) CHECK(mask[(size_t)drawn], "%s item %zu took %g", k->isa, i, drawn);
                    if (mask) mask += of;
                    continue;
                }
                const size_t choices = layout->sizes ? layout->sizes[i % m] : 2;
                const int64_t action = ((int64_t *)actions)[i];
                CHECK(action >= 0 && action < (int64_t)choices, "item %zu: %lld", i, (long long)action);
                CHECK(((int64_t *)env_actions)[i] == action + start[i % m], "item %zu", i);
                if (mask) CHECK(mask[action], "%s item %zu took %lld", k->isa, i, (long long)action);
                if (mask) mask += choices;
            }
        }
        if (distribution == TRPO_GAUSSIAN) {
            const double top[4] = {40, 1, 0, 0.5}, bottom[4] = {8, -1, -200, 0.5};
            const double action_scale[4] = {16, 1, 100, 0}, action_offset[4] = {24, 0, -100, 0.5};
            actor.low = bottom, actor.high = top, actor.action_scale = action_scale,
            actor.action_offset = action_offset;
            actor.deterministic = 0;
            CHECK(k->act(&actor, f.batch.cache.forward, ROWS, f.batch.problem.observations, is_double, NULL, 0,
                         normalized, actions, log_probs, env_actions, 1, f.batch.work.scratch, f.batch.work.threads,
                         &bad_row) == TRPO_ACT_OK,
                  "%s row %zu", k->isa, bad_row);
            k->policy_bind(&f.batch);
            for (size_t i = 0; i < ROWS; i++)
                CHECK(item(k, log_probs, i) == rounded(k, f.batch.cache.log_probs[i]), "%s row %zu", k->isa, i);
            for (size_t i = 0; i < count; i++) {
                const size_t j = i % 4;
                const double mapped = action_scale[j] * item(k, actions, i) + action_offset[j];
                const double wanted = fmin(fmax(mapped, bottom[j]), top[j]), found = ((double *)env_actions)[i];
                CHECK(fabs(found - wanted) <= 1e-12, "%s item %zu: %g", k->isa, i, found);
            }
            void *means = random_values(k, count, 1, 3), *noise = random_values(k, count, 1, 4);
            void *given = malloc(count * k->item_size);
            memcpy(given, noise, count * k->item_size);
            k->gaussian_actions(ROWS, m, means, f.batch.problem.parameters, noise, log_probs);
            for (size_t i = 0; i < count; i++) {
                const double wanted =
                    item(k, means, i) + item(k, given, i) * exp(item(k, f.batch.problem.parameters, i % m));
                CHECK(fabs(item(k, noise, i) - wanted) <= 1e-6 * (1 + fabs(wanted)), "%s item %zu", k->isa, i);
            }
            free(means), free(noise), free(given);
        }
        void *observations = (void *)f.batch.problem.observations;
        set_item(k, observations, 5 * 40 + 2, NAN);
        CHECK(k->act(&actor, f.batch.cache.forward, ROWS, observations, is_double, f.batch.problem.masks, 0, normalized,
                     actions, log_probs, env_actions, 1, f.batch.work.scratch, f.batch.work.threads,
                     &bad_row) == TRPO_ACT_BAD_OBSERVATION &&
                  bad_row == 40,
              "%s row %zu", k->isa, bad_row);
        free(normalized), free(log_probs), free(actions), free(env_actions);
        fixture_free(&f);
    }
}

int main(void) {
    for_every_table(policies);
    for_every_table(acting);
    return 0;
}
