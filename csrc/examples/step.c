/* One trust-region step without Python (Schulman et al. 2015): improve the surrogate while the mean KL divergence from the
 * old policy stays within DELTA.
 *
 *     make -C csrc examples
 *
 * A Gaussian policy answers random states with actions, which are the better the closer they come to a linear function of
 * the state. Prints the step, and exits with 0 when it improves within the trust region. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trpo/trpo.h"

enum { INPUTS = 8, OUTPUTS = 2, LAYERS = 3, ROWS = 1000, ITERATIONS = 10, TRIALS = 10 };
static const size_t widths[LAYERS + 1] = {INPUTS, 32, 32, OUTPUTS};
static const double DELTA = 0.01, DAMPING = 0.1, SHRINK = 0.8;

static float observations[ROWS * INPUTS], actions[ROWS * OUTPUTS], log_probs[ROWS], advantages[ROWS];

static void *checked_malloc(size_t bytes) {
    void *memory = malloc(bytes);
    if (memory) return memory;
    fputs("out of memory\n", stderr);
    exit(1);
}

/* `count` draws from a normal distribution of deviation `std`; another `stream`, other draws. */
static void draw(uint32_t stream, double std, int count, float *out) {
    const trpo_random_key key = {.seed = 1, .stream = stream};
    for (int i = 0; i < count; i++) {
        double value;
        trpo_random_normal(&key, (uint32_t)i, 1, &value);
        out[i] = (float)(std * value);
    }
}

/* Acts in ROWS states with the network's parameters at theta, behind OUTPUTS of log_std, and says how good that was. */
static void collect(const trpo_kernels *k, const trpo_mlp *network, trpo_action_layout layout, const float *theta) {
    static float states[ROWS * INPUTS], env_actions[ROWS * OUTPUTS];
    const trpo_actor actor = {
        .network = network, .layout = layout, .log_std = theta, .clip = INFINITY, .key = {.seed = 1, .stream = 3}};
    const int threads = trpo_get_threads();
    float *packed = checked_malloc(network->forward_items * k->item_size);
    void *scratch = checked_malloc((size_t)threads * network->scratch_items * k->item_size);
    size_t bad_row = 0;
    draw(2, 1, ROWS * INPUTS, states);
    k->mlp_pack_forward(network, theta + OUTPUTS, packed);
    const trpo_act_outcome outcome = k->act(&actor, packed, ROWS, states, 0, NULL, 0, observations, actions, log_probs,
                                            env_actions, 0, scratch, threads, &bad_row);
    free(packed), free(scratch);
    if (outcome != TRPO_ACT_OK) {
        fprintf(stderr, "row %zu is not finite\n", bad_row);
        exit(1);
    }
    for (int i = 0; i < ROWS; i++) {
        advantages[i] = 0;
        for (int j = 0; j < OUTPUTS; j++) {
            const float error = env_actions[i * OUTPUTS + j] - observations[i * INPUTS + j];
            advantages[i] -= error * error;
        }
    }
    double mean, std;
    k->standardize(ROWS, advantages, &mean, &std);
}

/* x of about (F + DAMPING I)^-1 g by conjugate gradient (Nocedal & Wright 2006, alg. 5.2). work: 3 n items. */
static void solve(const trpo_kernels *k, const trpo_policy_batch *batch, size_t n, const float *g, float *x,
                  float *work) {
    float *r = work, *p = work + n, *Ap = work + 2 * n;
    memset(x, 0, n * sizeof *x);
    memcpy(r, g, n * sizeof *g);
    memcpy(p, g, n * sizeof *g);
    double rr = k->dot(n, r, r);
    for (int i = 0; i < ITERATIONS && rr > 0; i++) {
        k->policy_fisher(batch, p, Ap);
        k->axpy(n, DAMPING, p, Ap);
        const double next = k->cg_update(n, rr / k->dot(n, p, Ap), p, Ap, x, r);
        k->cg_direction(n, next / rr, r, p);
        rr = next;
    }
}

int main(void) {
    if (trpo_dispatch(NULL) != 0) {
        fputs("no kernels for this CPU\n", stderr);
        return 1;
    }
    const trpo_kernels *k = trpo_kernels_for(TRPO_FLOAT32);
    trpo_mlp network;
    k->mlp_plan(LAYERS, widths, TRPO_TANH, &network);
    trpo_policy_batch batch = {
        .problem = {.network = &network,
                    .layout = {.distribution = TRPO_GAUSSIAN, .outputs = OUTPUTS, .components = OUTPUTS},
                    .rows = ROWS,
                    .total = ROWS,
                    .observations = observations,
                    .actions = actions,
                    .advantages = advantages,
                    .behaviour = log_probs}};
    const size_t n = trpo_policy_parameters(&network, &batch.problem.layout);
    float *theta = checked_malloc(7 * n * sizeof *theta), *trial = theta + n, *g = theta + 2 * n, *x = theta + 3 * n;
    float *work = theta + 4 * n; /* 3 n items */
    draw(1, 0.2, (int)n, theta);
    collect(k, &network, batch.problem.layout, theta);

    batch.problem.parameters = theta;
    const trpo_policy_workspace parts =
        trpo_policy_workspace_for(&batch.problem, k->item_size, TRPO_CACHE_BYTES, trpo_get_threads());
    void *memory = checked_malloc(parts.bytes);
    trpo_policy_place(&parts, memory, &batch);
    k->policy_bind(&batch);

    k->policy_gradient(&batch, g);
    solve(k, &batch, n, g, x, work);
    /* the step's length is where the quadratic model of the KL, s'Fs / 2, meets DELTA */
    k->policy_fisher(&batch, x, work);
    const double length = sqrt(2 * DELTA / k->dot(n, x, work));
    double improvement = 0, kl = 0, scale = length;
    int accepted = 0;
    for (int i = 0; i < TRIALS && !accepted; i++, scale *= SHRINK) {
        k->step_from(n, theta, scale, x, trial);
        k->policy_evaluate(&batch, trial, TRPO_KL_NEW_OLD, &improvement, &kl);
        accepted = improvement > 0 && kl <= DELTA;
        printf("%s of the step: improvement %.4f, KL %.5f%s\n", i ? "less" : "all", improvement, kl,
               accepted ? ", accepted" : "");
    }
    if (accepted) memcpy(theta, trial, n * sizeof *theta);
    printf("%s: %zu parameters, %d rows, |g| %.4f\n", k->isa, n, ROWS, sqrt(k->dot(n, g, g)));
    free(memory), free(theta);
    return accepted ? 0 : 1;
}
