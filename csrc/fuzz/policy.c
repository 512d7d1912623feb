/* Bound batches of every kind of policy: derivatives, products, trials, acting, Kronecker factors. */
#include "fuzz.h"

/* Every action of choices is one of them, and allowed. */
static void check_choices(const trpo_kernels *k, const trpo_action_layout *layout, size_t row, const void *actions,
                          const uint8_t *masks) {
    const int real = trpo_action_is_real(layout);
    const uint8_t *mask = masks ? masks + row * layout->mask_items : NULL;
    for (size_t j = 0; j < layout->components; j++) {
        const size_t at = row * layout->components + j;
        const size_t choices = layout->distribution == TRPO_PRODUCT       ? fixture_choices(layout, j)
                               : layout->distribution == TRPO_GAUSSIAN    ? 0
                               : layout->distribution == TRPO_CATEGORICAL ? layout->sizes[j]
                                                                          : 2;
        if (choices == 0) continue;
        const double action = real ? item(k, actions, at) : (double)((const int64_t *)actions)[at];
        CHECK(action >= 0 && action < (double)choices && action == floor(action), "row %zu took %g", row, action);
        if (mask) CHECK(mask[(size_t)action], "row %zu took %g, which is forbidden", row, action);
        if (mask) mask += choices;
    }
}

static void acting(input *in, arena *a, fixture *f, int threads) {
    const trpo_kernels *k = a->k;
    const trpo_policy_problem *p = &f->batch.problem;
    const trpo_action_layout *layout = &p->layout;
    const size_t inputs = f->plan.widths[0], items = p->rows * layout->components, columns = layout->components;
    const int is_double = k->item_size == sizeof(double), env_double = (int)take(in, 2);
    double *bounds[6]; /* low, high, scale, offset, mean, 1 / standard deviation */
    for (int i = 0; i < 6; i++) {
        const size_t n = i < 4 ? columns : inputs;
        bounds[i] = arena_take(a, n * sizeof(double), 0);
        for (size_t j = 0; j < n; j++) bounds[i][j] = i == 0 ? -0.5 : (i == 3 || i == 4 ? 0 : 0.5 * (double)(i + 1));
    }
    int64_t *start = arena_take(a, columns * sizeof(int64_t), 0);
    for (size_t j = 0; j < columns; j++) start[j] = (int64_t)j - 1;
    const int bounded = layout->distribution == TRPO_GAUSSIAN && take(in, 2), mapped = bounded && take(in, 2);
    const int normalized = (int)take(in, 2);
    trpo_actor actor = {.network = &f->plan,
                        .layout = *layout,
                        .log_std = p->parameters,
                        .mean = normalized ? bounds[4] : NULL,
                        .scale = normalized ? bounds[5] : NULL,
                        .clip = take(in, 2) ? INFINITY : 10,
                        .low = bounded ? bounds[0] : NULL,
                        .high = bounded ? bounds[1] : NULL,
                        .action_scale = mapped ? bounds[2] : NULL,
                        .action_offset = mapped ? bounds[3] : NULL,
                        .start = take(in, 2) ? start : NULL,
                        .key = {.seed = take(in, 256)},
                        .deterministic = (int)take(in, 2)};
    void *normal = arena_take(a, p->rows * inputs * k->item_size, 0), *log_probs = arena_take(a, p->rows * 8, 0);
    void *actions = arena_take(a, items * sizeof(double), 0), *sent = arena_take(a, items * sizeof(double), 0);
    size_t bad = SIZE_MAX;
    const trpo_act_outcome outcome =
        k->act(&actor, f->batch.cache.forward, p->rows, p->observations, is_double, p->masks, 0, normal, actions,
               log_probs, sent, env_double, f->batch.work.scratch, threads, &bad);
    CHECK((outcome == TRPO_ACT_OK) == (bad == SIZE_MAX) && (bad < p->rows || bad == SIZE_MAX), "row %zu", bad);
    for (size_t i = 0; i < p->rows; i++) {
        const int finite = finite_items(k, (const char *)p->observations + i * inputs * k->item_size, inputs);
        if (finite) continue;
        CHECK(outcome == TRPO_ACT_BAD_OBSERVATION && bad <= i, "row %zu is not finite, and acted on", i);
        break;
    }
    if (outcome == TRPO_ACT_OK)
        for (size_t i = 0; i < p->rows; i++) {
            CHECK(isfinite(item(k, log_probs, i)), "row %zu", i);
            check_choices(k, layout, i, actions, p->masks);
        }
    void *outputs = arena_values(a, in, p->rows * layout->outputs), *drawn = arena_take(a, items * sizeof(double), 0);
    k->sample(&actor, p->rows, outputs, p->masks, 0, drawn, log_probs);
    for (size_t i = 0; i < p->rows; i++)
        if (isfinite(item(k, log_probs, i))) check_choices(k, layout, i, drawn, p->masks);
    void *out = arena_take(a, p->rows * layout->outputs * k->item_size, 0);
    k->mlp_outputs(&f->plan, f->batch.cache.forward, p->rows, p->observations, out, f->batch.work.scratch, threads);
}

static void factors(input *in, arena *a, fixture *f, int threads) {
    const trpo_kernels *k = a->k;
    trpo_kronecker plan = {.layers = f->plan.layers, .size = f->parameters};
    const size_t offset = f->parameters - f->plan.parameters, size = f->parameters * k->item_size;
    for (int l = 0; l < plan.layers; l++) {
        plan.layer[l].inputs = f->plan.widths[l], plan.layer[l].outputs = f->plan.widths[l + 1];
        plan.layer[l].weight = offset + f->plan.weight[l], plan.layer[l].bias = offset + f->plan.bias[l];
    }
    k->kronecker_plan(&plan);
    trpo_kfac_sample sample = {.batch = &f->batch,
                               .plan = &plan,
                               .count = f->batch.problem.rows,
                               .input_step = 1 + take(in, 4),
                               .score_step = 1 + take(in, 4),
                               .key = {.seed = take(in, 256)}};
    int64_t *rows = arena_take(a, sample.count * sizeof(int64_t), 0);
    for (size_t i = 0; i < sample.count; i++) rows[i] = (int64_t)i;
    if (take(in, 2)) sample.rows = rows;
    const trpo_kfac_workspace w = trpo_kfac_workspace_for(&sample, k->item_size, threads);
    sample.blocks = w.blocks, sample.threads = w.threads;
    sample.sums = arena_take(a, w.sums.bytes, 0), sample.scratch = arena_take(a, w.scratch.bytes, 0);
    const trpo_kronecker_workspace kept = trpo_kronecker_workspace_for(&plan, k->item_size);
    void *factors = arena_take(a, kept.factors.bytes, 0), *diagonal = arena_take(a, kept.diagonal.bytes, 0);
    memset(factors, 0, kept.factors.bytes), memset(diagonal, 0, kept.diagonal.bytes);
    k->kfac_statistics(&sample, factors);
    if (take(in, 2)) disturb(in, k, factors, plan.factor_items);
    k->kronecker_diagonal(&plan, factors, diagonal);
    const int bad_diagonal = !k->shifted_reciprocal(f->parameters, 0.1, diagonal);
    const int bad = k->kronecker_invert(&plan, factors, (double)take(in, 256) / 64, (double)take(in, 256) / 255,
                                        arena_take(a, (size_t)threads * plan.invert_items * k->item_size, 0), threads);
    CHECK(bad >= -1 && bad < 2 * plan.layers, "matrix %d", bad);
    if (bad >= 0 || bad_diagonal) return;
    const void *v = arena_constant(a, arena_values(a, in, f->parameters));
    void *out = arena_take(a, size, 0);
    k->kronecker_apply(&plan, factors, diagonal, v, out, arena_take(a, kept.work.bytes, 0), threads);
}

/* Of any vector; the number of threads changes no bit. */
static void products(input *in, arena *a, fixture *f) {
    const trpo_kernels *k = a->k;
    trpo_policy_batch *b = &f->batch;
    const size_t n = f->parameters, bytes = n * k->item_size;
    const void *v = arena_constant(a, arena_values(a, in, n));
    void *out = arena_take(a, bytes, 0), *again = arena_take(a, bytes, 0);
    k->policy_gradient(b, out);
    k->policy_fisher(b, v, out);
    const int threads = b->work.threads;
    b->work.threads = 1;
    k->policy_fisher(b, v, again);
    CHECK(memcmp(out, again, bytes) == 0, "%s: another number of threads, other bits", k->isa);
    b->work.threads = threads;
    const size_t items = trpo_policy_jacobian_items(b);
    if (items && take(in, 2)) {
        b->cache.jacobians = arena_take(a, items * k->item_size, 0);
        k->policy_jacobians(b);
        k->policy_fisher(b, v, out);
        b->cache.jacobians = NULL;
    }
    if (k->policy_narrow && take(in, 2)) {
        const trpo_bfloat16_workspace w = trpo_bfloat16_workspace_for(&f->plan, threads);
        b->bfloat16 =
            (trpo_policy_bfloat16){trpo_bfloat16_kernels_for("portable"), arena_take(a, w.weights.bytes, 4),
                                   arena_take(a, w.trial.bytes, 4), arena_take(a, w.scratch.bytes, 4), w.threads};
        k->policy_narrow(b);
        k->policy_fisher_narrow(b, v, out);
    }
    double improvement, kl;
    k->policy_evaluate(b, v, (trpo_kl_direction)take(in, 2), &improvement, &kl);
    k->policy_evaluate(b, b->problem.parameters, TRPO_KL_NEW_OLD, &improvement, &kl);
    CHECK(isnan(improvement) || isnan(kl) || kl == 0, "%s: a KL of %g of the same policy", k->isa, kl);
    k->policy_entropy(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    arena a = {.k = take_table(&in)};
    const trpo_kernels *k = a.k;
    const int layers = 1 + (int)take(&in, 4), threads = 1 + (int)take(&in, 3);
    size_t widths[5];
    for (int l = 0; l <= layers; l++) widths[l] = 1 + take(&in, 36);
    const trpo_activation activation = (trpo_activation)take(&in, 9);
    const trpo_distribution distribution = (trpo_distribution)take(&in, 4);
    fixture f;
    fixture_make(&f, k, layers, widths, activation, distribution, (int)take(&in, 2), 1 + take(&in, 300), threads);
    trpo_policy_problem *p = &f.batch.problem;
    disturb(&in, k, p->observations, p->rows * widths[0]);
    disturb(&in, k, p->parameters, f.parameters);
    disturb(&in, k, p->advantages, p->rows);
    if (take(&in, 2)) p->behaviour = arena_constant(&a, arena_values(&a, &in, p->rows));
    if (take(&in, 2)) f.batch.cache.tiles = take(&in, f.batch.cache.tiles + 1);
    k->policy_bind(&f.batch);
    if (take(&in, 2)) products(&in, &a, &f);
    if (take(&in, 2)) acting(&in, &a, &f, f.batch.work.threads);
    if (f.batch.cache.tiles == (p->rows + TRPO_TILE_ROWS - 1) / TRPO_TILE_ROWS && take(&in, 2))
        factors(&in, &a, &f, threads);
    fixture_free(&f);
    arena_close(&a);
    return 0;
}
