/* The value fit's gradient against differences of its loss, Adam against its definition, advantages and moments. */
#include "check.h"

enum { ROWS = 330, INPUTS = 5, MOST_THREADS = 5 };

/* A fit with every part of its work its own allocation, so that a sanitizer sees each overrun. */
typedef struct {
    trpo_mlp plan;
    trpo_critic_fit fit;
    void *observations, *returns, *parameters, *m, *v;
    int64_t order[ROWS];
} problem;

static void set_up(problem *p, const trpo_kernels *k, int layers, const size_t *widths, trpo_activation activation,
                   int threads) {
    memset(p, 0, sizeof *p);
    k->mlp_plan(layers, widths, activation, &p->plan);
    const size_t n = p->plan.parameters;
    p->observations = random_values(k, ROWS * widths[0], 1, 1), p->returns = random_values(k, ROWS, 1, 2);
    p->parameters = random_values(k, n, 0.3, 3), p->m = random_values(k, n, 0, 4), p->v = random_values(k, n, 0, 4);
    p->fit = (trpo_critic_fit){.network = &p->plan,
                               .observations = p->observations,
                               .returns = p->returns,
                               .learning_rate = 1e-2,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .epsilon = 1e-8};
    const trpo_critic_workspace w = trpo_critic_workspace_for(&p->plan, k->item_size, ROWS, threads, 0);
    for (int i = 0; i < 3; i++) p->fit.state[i] = malloc(w.state[i].bytes);
    p->fit.sums = malloc(w.sums.bytes), p->fit.squares = malloc(w.squares.bytes);
    p->fit.scratch = malloc(w.scratch.bytes);
    p->fit.blocks = w.blocks, p->fit.threads = w.threads;
    const trpo_random_key key = {.seed = 4};
    trpo_random_permutation(&key, ROWS, p->order);
}

static void tear_down(problem *p) {
    for (int i = 0; i < 3; i++) free(p->fit.state[i]);
    free(p->fit.sums), free(p->fit.squares), free(p->fit.scratch);
    free(p->observations), free(p->returns), free(p->parameters), free(p->m), free(p->v);
}

/* Of ROWS rows at parameters, which stay as they are. */
static double loss_at(const trpo_kernels *k, problem *p, const void *parameters) {
    double squares;
    p->fit.learning_rate = 0;
    k->critic_load(&p->fit, parameters, p->m, p->v);
    CHECK(k->critic_step(&p->fit, ROWS, p->order, 1, &squares) == TRPO_ADAM_FINITE, "%s", k->isa);
    return squares / ROWS;
}

static void gradient(const trpo_kernels *k) {
    static const size_t widths[][5] = {{INPUTS, 1}, {INPUTS, 20, 1}, {INPUTS, 20, 33, 1}, {70, 130, 20, 9, 1}};
    for (int depth = 1; depth <= 4; depth++)
        for (int activation = TRPO_TANH; activation <= TRPO_SOFTPLUS; activation++) {
            if (activation == TRPO_RELU || activation == TRPO_LEAKY_RELU) continue; /* differences cross their edge */
            problem p;
            set_up(&p, k, depth, widths[depth - 1], (trpo_activation)activation, 1);
            const size_t n = p.plan.parameters, size = k->item_size;
            void *d = random_values(k, n, 1 / sqrt((double)n), 5), *trial = malloc(n * size), *g = malloc(n * size);
            void *zero = malloc(n * size), *theta = malloc(n * size);
            p.fit.beta1 = 0; /* m is then the gradient */
            loss_at(k, &p, p.parameters);
            k->critic_save(&p.fit, theta, g, zero);
            CHECK(memcmp(theta, p.parameters, n * size) == 0, "%s: moved with a learning rate of 0", k->isa);
            double slope = 0;
            for (size_t i = 0; i < n; i++) slope += item(k, g, i) * item(k, d, i);
            const double h = size == sizeof(float) ? 1e-2 : 1e-6, tolerance = size == sizeof(float) ? 1e-2 : 1e-7;
            k->step_from(n, p.parameters, h, d, trial);
            const double plus = loss_at(k, &p, trial);
            k->step_from(n, p.parameters, -h, d, trial);
            const double minus = loss_at(k, &p, trial);
            CHECK(fabs((plus - minus) / (2 * h) - slope) < tolerance * (1 + fabs(slope)),
                  "%s, depth %d, %d: %g against %g", k->isa, depth, activation, (plus - minus) / (2 * h), slope);
            free(d), free(trial), free(g), free(zero), free(theta);
            tear_down(&p);
        }
}

/* Minibatches of every size, whose bits do not depend on the number of threads. */
static void threads(const trpo_kernels *k) {
    static const size_t widths[][4] = {{17, 64, 64, 1}, {70, 130, 300, 1}};
    static const size_t counts[] = {1, 64, 65, 128, 200, ROWS};
    for (int large = 0; large < 2; large++) {
        problem p;
        void *first = NULL;
        for (int count = 1; count <= MOST_THREADS; count += under_memcheck() ? MOST_THREADS - 1 : 1) {
            set_up(&p, k, 3, widths[large], TRPO_SIGMOID, count);
            const size_t n = p.plan.parameters, bytes = n * k->item_size;
            double all = 0;
            k->critic_load(&p.fit, p.parameters, p.m, p.v);
            for (int i = 0; i < 12; i += under_memcheck() ? 2 : 1) {
                double squares;
                CHECK(k->critic_step(&p.fit, counts[i / 2], p.order, i + 1, &squares) == TRPO_ADAM_FINITE, "%s",
                      k->isa);
                all += squares;
            }
            char *found = malloc(3 * bytes + sizeof all);
            k->critic_save(&p.fit, found, found + bytes, found + 2 * bytes);
            memcpy(found + 3 * bytes, &all, sizeof all);
            if (!first) first = found;
            CHECK(memcmp(found, first, 3 * bytes + sizeof all) == 0, "%s: other bits on %d threads", k->isa, count);
            if (found != first) free(found);
            tear_down(&p);
        }
        free(first);
    }
}

/* Products of bf16 numbers: the gradient is that of float32 to some roundings of 2^-9, and not to its bits; it depends
 * neither on the number of threads nor on what the work held before. */
static void narrow_fit(const trpo_kernels *k, const struct trpo_bfloat16_kernels *kernels, int depth,
                       const size_t *widths, trpo_activation activation, size_t count) {
    void *gradients[2] = {NULL, NULL}, *first = NULL;
    for (int threads = 0; threads <= MOST_THREADS; threads += under_memcheck() ? MOST_THREADS : 1) {
        problem p; /* without threads: in float32 */
        set_up(&p, k, depth, widths, activation, threads ? threads : 1);
        const size_t n = p.plan.parameters, bytes = n * k->item_size;
        const size_t items = (size_t)p.fit.threads * trpo_critic_bfloat16_items(&p.plan);
        p.fit.bfloat16 = (trpo_critic_bfloat16){.kernels = kernels, .scratch = malloc(items * sizeof(uint32_t))};
        memset(p.fit.bfloat16.scratch, 0xff, items * sizeof(uint32_t));
        p.fit.beta1 = p.fit.learning_rate = 0; /* m is then the gradient */
        k->critic_load(&p.fit, p.parameters, p.m, p.v);
        double squares;
        CHECK((threads ? k->critic_step_narrow : k->critic_step)(&p.fit, count, p.order, 1, &squares) ==
                  TRPO_ADAM_FINITE,
              "%s", k->isa);
        void *g = malloc(bytes);
        k->critic_save(&p.fit, p.parameters, g, p.v);
        if (!gradients[threads > 0]) gradients[threads > 0] = g;
        if (threads && !first) first = g;
        CHECK(!first || memcmp(first, g, bytes) == 0, "%s: other bits on %d threads", k->isa, threads);
        if (g != gradients[threads > 0]) free(g);
        if (threads == 1 || under_memcheck()) {
            double *exact = malloc(n * sizeof *exact);
            for (size_t i = 0; i < n; i++) exact[i] = item(k, gradients[0], i);
            const double error = first ? relative_error(k, first, exact, n) : 0;
            CHECK(error < 5e-2, "%s, depth %d, %d, %zu rows: %g", k->isa, depth, activation, count, error);
            CHECK(!first || depth == 1 || error > 1e-5, "%s, depth %d: nothing was rounded", k->isa, depth);
            free(exact);
        }
        free(p.fit.bfloat16.scratch);
        tear_down(&p);
    }
    free(gradients[0]), free(gradients[1]);
}

static void narrow(const trpo_kernels *k) {
    static const size_t widths[][5] = {{INPUTS, 1}, {INPUTS, 20, 1}, {17, 64, 64, 1}, {70, 131, 20, 9, 1}};
    static const size_t counts[] = {1, 2, 63, 64, 65, 128, ROWS};
    if (k->item_size != sizeof(float)) {
        CHECK(!k->critic_step_narrow, "%s has such products in double", k->isa);
        return;
    }
    for (int own = 0; own < 2; own++) {
        const struct trpo_bfloat16_kernels *kernels = trpo_bfloat16_kernels_for(own ? NULL : "portable");
        if (!kernels) continue;
        for (int depth = 1; depth <= 4; depth++)
            for (int i = 0; i < 7; i += under_memcheck() ? 2 : 1)
                narrow_fit(k, kernels, depth, widths[depth - 1], (trpo_activation)(1 + (depth + i) % 8), counts[i]);
    }
}

/* Adam and AdamW on a linear model, R = -1/2 and no parameter yet: the gradient is the first row's observation. */
static void adam_with(const trpo_kernels *k, double weight_decay) {
    enum { N = 37 };
    const size_t widths[] = {N, 1};
    problem p;
    set_up(&p, k, 1, widths, TRPO_TANH, 1);
    p.fit.weight_decay = weight_decay;
    double expected[N + 1] = {0}, em[N + 1] = {0}, ev[N + 1] = {0};
    for (size_t i = 0; i <= N; i++) set_item(k, p.parameters, i, 0);
    set_item(k, p.returns, 0, -0.5);
    p.order[0] = 0;
    k->critic_load(&p.fit, p.parameters, p.m, p.v);
    for (int step = 1; step <= 5; step++) {
        double squares, error = expected[N] + 0.5;
        for (size_t i = 0; i < N; i++) error += expected[i] * item(k, p.observations, i);
        CHECK(k->critic_step(&p.fit, 1, p.order, step, &squares) == TRPO_ADAM_FINITE, "%s", k->isa);
        CHECK(fabs(squares - error * error) < 100 * k->epsilon, "%s: %g against %g", k->isa, squares, error * error);
        for (size_t i = 0; i <= N; i++) {
            const double g = 2 * error * (i < N ? item(k, p.observations, i) : 1);
            em[i] = 0.9 * em[i] + 0.1 * g;
            ev[i] = 0.999 * ev[i] + 0.001 * g * g;
            expected[i] = expected[i] * (1 - 1e-2 * weight_decay) -
                          1e-2 * em[i] / (1 - pow(0.9, step)) / (sqrt(ev[i] / (1 - pow(0.999, step))) + 1e-8);
        }
    }
    void *theta = malloc((N + 1) * k->item_size);
    k->critic_save(&p.fit, theta, p.m, p.v);
    CHECK(relative_error(k, theta, expected, N + 1) < 100 * k->epsilon, "%s", k->isa);
    /* a gradient whose square overflows, in any place of a vector */
    for (size_t i = 0; i < N; i++) {
        double squares;
        const double before = item(k, p.observations, i);
        set_item(k, p.observations, i, k->item_size == sizeof(float) ? 1e30 : 1e200);
        k->critic_load(&p.fit, p.parameters, p.m, p.v);
        CHECK(k->critic_step(&p.fit, 1, p.order, 6, &squares) == TRPO_ADAM_SECOND_MOMENT, "%s: %zu", k->isa, i);
        set_item(k, p.observations, i, NAN);
        CHECK(k->critic_step(&p.fit, 1, p.order, 6, &squares) == TRPO_ADAM_PARAMETER, "%s: %zu", k->isa, i);
        set_item(k, p.observations, i, before);
    }
    free(theta);
    tear_down(&p);
}

static void adam(const trpo_kernels *k) {
    adam_with(k, 0);
    adam_with(k, 0.5);
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
    for_every_table(threads);
    for_every_table(narrow);
    for_every_table(adam);
    for_every_table(advantages);
    return 0;
}
