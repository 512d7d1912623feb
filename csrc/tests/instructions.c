/* Runs one hot kernel once inside measured(), which is what callgrind counts; see instructions.py.
 *   instructions          names the cases
 *   instructions CASE
 * Always the AVX2 path, which valgrind knows, on one thread. */
#include "policy_fixture.h"

enum { ROWS = 960, MINIBATCH = 128, ENVIRONMENTS = 8, KEPT = 5 };
static const size_t policy_widths[] = {17, 64, 64, 6}, critic_widths[] = {17, 64, 64, 1};

static const trpo_kernels *k;
static fixture f;
static void *a, *b, *c, *d, *e; /* vectors of n items */
static double total;

static void fisher(void) { k->policy_fisher(&f.batch, a, b); }
static void *jacobians;
static void make_jacobians(void) {
    f.batch.cache.jacobians = jacobians;
    k->policy_jacobians(&f.batch);
}
static void fisher_with_jacobians(void) {
    f.batch.cache.jacobians = jacobians;
    fisher();
}
static void gradient(void) { k->policy_gradient(&f.batch, b); }
static void bind(void) { k->policy_bind(&f.batch); }
static void evaluate(void) {
    double improvement, kl;
    k->policy_evaluate(&f.batch, a, TRPO_KL_NEW_OLD, &improvement, &kl);
    total += improvement + kl;
}

/* What an iteration does besides its product, with damping and reorthogonalization, KEPT residuals kept. */
static void cg_vectors(void) {
    const size_t n = f.parameters;
    double coefficients[KEPT];
    k->axpy(n, 0.1, a, b);
    total += k->dot(n, a, b) + k->dot(n, a, a) + k->dot(n, b, b);
    k->scaled_copy(n, 0.5, d, e);
    total += k->cg_update(n, 1e-3, a, b, c, d);
    k->project_out(n, KEPT, e, e, coefficients, d);
    total += k->dot(n, d, d);
    k->cg_direction(n, 0.5, d, a);
}

static trpo_mlp critic;
static trpo_critic_fit fit;
static void *critic_work;
static int64_t order[MINIBATCH];

static void critic_minibatch(void) {
    double squares;
    CHECK(k->critic_step(&fit, MINIBATCH, order, 1, &squares) == TRPO_ADAM_FINITE, "%g", squares);
    total += squares;
}

static void act(void) {
    static float normalized[ENVIRONMENTS * 17], actions[ENVIRONMENTS * 6], env_actions[ENVIRONMENTS * 6];
    static float log_probs[ENVIRONMENTS];
    static double mean[17], scale[17], low[6], high[6];
    size_t bad_row;
    for (int i = 0; i < 17; i++) scale[i] = 1;
    for (int i = 0; i < 6; i++) low[i] = -1, high[i] = 1;
    const trpo_actor actor = {.network = &f.plan,
                              .layout = f.batch.problem.layout,
                              .log_std = f.batch.problem.parameters,
                              .mean = mean,
                              .scale = scale,
                              .clip = 10,
                              .low = low,
                              .high = high,
                              .key = {.seed = 1}};
    CHECK(k->act(&actor, f.batch.cache.forward, ENVIRONMENTS, f.batch.problem.observations, 0, NULL, 0, normalized,
                 actions, log_probs, env_actions, 0, f.batch.work.scratch, 1, &bad_row) == TRPO_ACT_OK,
          "row %zu", bad_row);
}

static const struct {
    const char *name;
    trpo_dtype dtype;
    void (*body)(void);
} cases[] = {
    {"bind", TRPO_FLOAT32, bind},
    {"gradient", TRPO_FLOAT32, gradient},
    {"fisher", TRPO_FLOAT32, fisher},
    {"fisher_float64", TRPO_FLOAT64, fisher},
    {"jacobians", TRPO_FLOAT32, make_jacobians},
    {"fisher_with_jacobians", TRPO_FLOAT32, fisher_with_jacobians},
    {"evaluate", TRPO_FLOAT32, evaluate},
    {"cg_vectors", TRPO_FLOAT32, cg_vectors},
    {"critic_minibatch", TRPO_FLOAT32, critic_minibatch},
    {"act", TRPO_FLOAT32, act},
};
enum { CASES = sizeof cases / sizeof cases[0] };

/* The empty statement keeps the call from becoming a jump, after which callgrind would not see it return. */
void measured(void (*body)(void));
__attribute__((noinline)) void measured(void (*body)(void)) {
    body();
    __asm__ volatile("");
}

static void set_up(trpo_dtype dtype) {
    CHECK(trpo_dispatch("x86-64-v3") == 0, "no AVX2 here");
    k = trpo_kernels_for(dtype);
    fixture_make(&f, k, 3, policy_widths, TRPO_TANH, TRPO_GAUSSIAN, 0, ROWS, 1);
    const size_t n = f.parameters;
    jacobians = random_values(k, trpo_policy_jacobian_items(&f.batch), 1, 7);
    a = random_values(k, n, 0.3, 1), b = random_values(k, n, 0.3, 2), c = random_values(k, n, 0.3, 3);
    d = random_values(k, n, 0.3, 4), e = random_values(k, KEPT * n, 1e-3, 5);
    k->mlp_plan(3, critic_widths, TRPO_TANH, &critic);
    const trpo_critic_workspace parts = trpo_critic_workspace_for(&critic, k->item_size, MINIBATCH, 1, 0);
    critic_work = malloc(parts.bytes);
    fit = (trpo_critic_fit){.network = &critic,
                            .observations = f.batch.problem.observations,
                            .returns = f.batch.problem.advantages,
                            .learning_rate = 1e-3,
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .epsilon = 1e-8};
    trpo_critic_place(&parts, critic_work, &fit);
    void *parameters = random_values(k, critic.parameters, 0.1, 6), *moment = random_values(k, critic.parameters, 0, 6);
    k->critic_load(&fit, parameters, moment, moment);
    free(parameters), free(moment);
    for (int i = 0; i < MINIBATCH; i++) order[i] = i * 7 % ROWS;
}

int main(int count, char **arguments) {
    for (int i = 0; i < CASES; i++) {
        if (count < 2) {
            puts(cases[i].name);
        } else if (strcmp(arguments[1], cases[i].name) == 0) {
            set_up(cases[i].dtype);
            cases[i].body(); /* symbols are resolved, and the pool's size is known */
            measured(cases[i].body);
            CHECK(isfinite(total), "%g", total);
            free(critic_work), free(jacobians);
            free(a), free(b), free(c), free(d), free(e);
            fixture_free(&f);
            return 0;
        }
    }
    return count < 2 ? 0 : 1;
}
