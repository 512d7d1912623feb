/* The value fit's gradient against differences of its loss, Adam against its definition, advantages and moments. */
#include "check.h"

enum { ROWS = 130, INPUTS = 5 };

typedef struct {
    const trpo_kernels *k;
    trpo_mlp plan;
    void *observations, *returns, *forward, *backward, *gathered, *sums, *scratch, *gradient;
    int64_t order[ROWS];
} problem;

static double loss_at(problem *p, const void *parameters) {
    p->k->mlp_pack_forward(&p->plan, parameters, p->forward);
    p->k->mlp_pack_backward(&p->plan, parameters, p->backward);
    return p->k->critic_gradient(&p->plan, p->forward, p->backward, ROWS, p->order, p->observations, p->returns,
                                 p->gathered, p->sums, p->scratch, p->gradient) /
           ROWS;
}

static void gradient_of(const trpo_kernels *k, trpo_activation activation) {
    const size_t widths[] = {INPUTS, 20, 33, 1};
    problem p = {.k = k};
    k->mlp_plan(3, widths, activation, &p.plan);
    const size_t n = p.plan.parameters, size = k->item_size;
    p.observations = random_values(k, ROWS * INPUTS, 1, 1);
    p.returns = random_values(k, ROWS, 1, 2);
    const trpo_critic_workspace w = trpo_critic_workspace_for(&p.plan, size);
    p.forward = malloc(w.forward.bytes), p.backward = malloc(w.backward.bytes);
    p.gathered = malloc(w.gathered.bytes);
    p.sums = malloc(w.sums.bytes), p.scratch = malloc(w.scratch.bytes);
    p.gradient = malloc(w.gradient.bytes);
    const trpo_random_key key = {.seed = 4};
    trpo_random_permutation(&key, ROWS, p.order);
    void *theta = random_values(k, n, 0.3, 3), *d = random_values(k, n, 1, 5), *trial = malloc(n * size);
    loss_at(&p, theta);
    double slope = 0;
    for (size_t i = 0; i < n; i++) slope += item(k, p.gradient, i) * item(k, d, i);
    const double h = size == sizeof(float) ? 1e-3 : 1e-6, tolerance = size == sizeof(float) ? 1e-2 : 1e-7;
    k->step_from(n, theta, h, d, trial);
    const double plus = loss_at(&p, trial);
    k->step_from(n, theta, -h, d, trial);
    const double minus = loss_at(&p, trial);
    CHECK(fabs((plus - minus) / (2 * h) - slope) < tolerance * (1 + fabs(slope)), "%s: %g against %g", k->isa,
          (plus - minus) / (2 * h), slope);
    free(p.observations), free(p.returns), free(p.forward), free(p.backward), free(p.gathered), free(p.sums);
    free(p.scratch), free(p.gradient), free(theta), free(d), free(trial);
}

static void gradient(const trpo_kernels *k) {
    gradient_of(k, TRPO_TANH);
    for (int activation = TRPO_SILU; activation <= TRPO_SOFTPLUS; activation++)
        gradient_of(k, (trpo_activation)activation);
}

static void adam(const trpo_kernels *k) {
    enum { N = 37 };
    void *g = random_values(k, N, 1, 6), *m = random_values(k, N, 0, 7), *v = random_values(k, N, 0, 8);
    void *theta = random_values(k, N, 1, 9);
    double expected[N], em[N] = {0}, ev[N] = {0};
    for (size_t i = 0; i < N; i++) expected[i] = item(k, theta, i);
    for (int step = 1; step <= 5; step++) {
        CHECK(k->adam(N, 1e-2, 0.9, 0.999, 1e-8, step, g, m, v, theta) == TRPO_ADAM_FINITE, "%s", k->isa);
        for (size_t i = 0; i < N; i++) {
            em[i] = 0.9 * em[i] + 0.1 * item(k, g, i);
            ev[i] = 0.999 * ev[i] + 0.001 * item(k, g, i) * item(k, g, i);
            expected[i] -= 1e-2 * em[i] / (1 - pow(0.9, step)) / (sqrt(ev[i] / (1 - pow(0.999, step))) + 1e-8);
        }
    }
    CHECK(relative_error(k, theta, expected, N) < 20 * k->epsilon, "%s", k->isa);
    /* a gradient whose square overflows, in any place of a vector */
    for (size_t i = 0; i < N; i++) {
        const double before = item(k, g, i), moment = item(k, v, i);
        set_item(k, g, i, k->item_size == sizeof(float) ? 1e30 : 1e200);
        CHECK(k->adam(N, 1e-2, 0.9, 0.999, 1e-8, 6, g, m, v, theta) == TRPO_ADAM_SECOND_MOMENT, "%s: %zu", k->isa, i);
        set_item(k, g, i, before), set_item(k, m, i, before), set_item(k, v, i, moment);
    }
    set_item(k, g, 3, NAN);
    CHECK(k->adam(N, 1e-2, 0.9, 0.999, 1e-8, 6, g, m, v, theta) == TRPO_ADAM_PARAMETER, "%s", k->isa);
    free(g), free(m), free(v), free(theta);
}

static void advantages(const trpo_kernels *k) {
    /* two environments; the first truncated at t = 1, the second terminated there */
    void *rewards = malloc(6 * k->item_size), *values = malloc(6 * k->item_size), *next = malloc(6 * k->item_size);
    void *a = malloc(6 * k->item_size), *returns = malloc(6 * k->item_size);
    const uint8_t terminated[6] = {0, 0, 0, 1, 0, 0}, truncated[6] = {0, 0, 1, 0, 0, 0};
    for (size_t i = 0; i < 6; i++) {
        set_item(k, rewards, i, 1);
        set_item(k, values, i, 0);
        set_item(k, next, i, 8);
    }
    k->gae(3, 2, 0.5, 0.5, rewards, values, next, terminated, truncated, a, returns);
    const double expected[6] = {5 + 0.25 * 5, 5 + 0.25 * 1, 5, 1, 5, 5};
    CHECK(relative_error(k, a, expected, 6) < 8 * k->epsilon, "%s", k->isa);
    CHECK(relative_error(k, returns, expected, 6) < 8 * k->epsilon, "%s", k->isa);
    double mean, std;
    for (size_t i = 0; i < 6; i++) set_item(k, a, i, 0.1);
    k->standardize(6, a, &mean, &std);
    for (size_t i = 0; i < 6; i++) CHECK(item(k, a, i) == 0, "%s: %g", k->isa, item(k, a, i));

    double m = 0, m2 = 0;
    void *data = random_values(k, 50, 1, 10);
    CHECK(k->merge_moments(20, 1, data, 0, &m, &m2) == 0, "%s", k->isa);
    CHECK(k->merge_moments(30, 1, (char *)data + 20 * k->item_size, 20, &m, &m2) == 0, "%s", k->isa);
    double whole = 0, squares = 0;
    for (size_t i = 0; i < 50; i++) whole += item(k, data, i) / 50;
    for (size_t i = 0; i < 50; i++) squares += (item(k, data, i) - whole) * (item(k, data, i) - whole);
    CHECK(fabs(m - whole) < 1e-14 && fabs(m2 - squares) < 1e-12 * squares, "%s", k->isa);
    free(rewards), free(values), free(next), free(a), free(returns), free(data);
}

int main(void) {
    for_every_table(gradient);
    for_every_table(adam);
    for_every_table(advantages);
    return 0;
}
