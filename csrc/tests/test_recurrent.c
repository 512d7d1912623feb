/* Recurrent cells: the forward pass against its equations in double, both derivative passes against each other and against
 * differences, and that neither threads nor other sequences change a bit. */
#include "check.h"

enum { STEPS = 5, SEQUENCES = 4, MOST_UNITS = 19, MOST_GATES = 4 };

/* One cell with everything that its passes read and write. */
typedef struct {
    const trpo_kernels *k;
    trpo_cell cell;
    size_t rows, width;
    void *weight, *bias, *inputs, *first;
    uint8_t starts[STEPS * SEQUENCES];
    void *forward, *backward, *states, *kept, *scratch;
} problem;

static problem make_problem(const trpo_kernels *k, trpo_cell_kind kind, size_t units, uint64_t seed) {
    problem p = {.k = k, .rows = STEPS * SEQUENCES};
    k->cell_plan(kind, units, &p.cell);
    p.width = p.cell.gates * units;
    p.weight = random_values(k, p.width * units, 0.5, seed);
    p.bias = random_values(k, p.width, 0.5, seed + 1);
    p.inputs = random_values(k, p.rows * p.width, 1, seed + 2);
    p.first = random_values(k, SEQUENCES * p.cell.state_items, 0.5, seed + 3);
    for (size_t i = 0; i < p.rows; i++) p.starts[i] = i == 2 || i == SEQUENCES + 1 || i == 3 * SEQUENCES;
    p.forward = malloc(p.cell.forward_items * k->item_size);
    p.backward = malloc(p.cell.backward_items * k->item_size);
    p.states = malloc(p.rows * p.cell.state_items * k->item_size);
    p.kept = malloc(p.rows * p.cell.kept_items * k->item_size);
    p.scratch = malloc(SEQUENCES * p.cell.scratch_items * k->item_size);
    k->cell_pack(&p.cell, p.weight, p.bias, p.forward, p.backward);
    return p;
}

static void run(problem *p, int threads) {
    p->k->cell_forward(&p->cell, STEPS, SEQUENCES, p->forward, p->inputs, p->starts, p->first, p->states, p->kept,
                       p->scratch, threads);
}

static void free_problem(problem *p) {
    void *parts[] = {p->weight, p->bias, p->inputs, p->first, p->forward, p->backward, p->states, p->kept, p->scratch};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) free(parts[i]);
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* States after every step, rows x state_items, as recurrent.h has them. inputs and weight may differ from the problem's. */
static void expected_states(const problem *p, const double *inputs, const double *weight, const double *bias,
                            double *out) {
    const size_t n = p->cell.units, items = p->cell.state_items;
    const int gru = p->cell.kind == TRPO_GRU;
    double u[MOST_GATES * MOST_UNITS];
    for (size_t e = 0; e < SEQUENCES; e++) {
        double h[MOST_UNITS], c[MOST_UNITS];
        for (size_t j = 0; j < n; j++) {
            h[j] = item(p->k, p->first, e * items + j);
            c[j] = gru ? 0 : item(p->k, p->first, e * items + n + j);
        }
        for (size_t t = 0; t < STEPS; t++) {
            const size_t row = t * SEQUENCES + e;
            if (p->starts[row])
                for (size_t j = 0; j < n; j++) h[j] = c[j] = 0;
            for (size_t g = 0; g < p->width; g++) {
                u[g] = bias[g];
                for (size_t j = 0; j < n; j++) u[g] += weight[g * n + j] * h[j];
            }
            const double *x = inputs + row * p->width;
            for (size_t j = 0; j < n; j++) {
                if (gru) {
                    const double r = sigmoid(x[j] + u[j]), z = sigmoid(x[n + j] + u[n + j]);
                    h[j] = (1 - z) * tanh(x[2 * n + j] + r * u[2 * n + j]) + z * h[j];
                } else {
                    c[j] =
                        sigmoid(x[n + j] + u[n + j]) * c[j] + sigmoid(x[j] + u[j]) * tanh(x[2 * n + j] + u[2 * n + j]);
                    h[j] = sigmoid(x[3 * n + j] + u[3 * n + j]) * tanh(c[j]);
                    out[row * items + n + j] = c[j];
                }
                out[row * items + j] = h[j];
            }
        }
    }
}

static double *doubles(const trpo_kernels *k, const void *values, size_t n) {
    double *copy = malloc((n + 1) * sizeof(double));
    for (size_t i = 0; i < n; i++) copy[i] = item(k, values, i);
    return copy;
}

static const size_t UNITS[] = {1, 3, 8, MOST_UNITS};

static void test_forward_is_its_equations(const trpo_kernels *k) {
    for (int kind = TRPO_GRU; kind <= TRPO_LSTM; kind++)
        for (size_t i = 0; i < sizeof UNITS / sizeof UNITS[0]; i++) {
            problem p = make_problem(k, (trpo_cell_kind)kind, UNITS[i], 7);
            run(&p, 2);
            const size_t n = p.rows * p.cell.state_items;
            double *inputs = doubles(k, p.inputs, p.rows * p.width), *bias = doubles(k, p.bias, p.width);
            double *weight = doubles(k, p.weight, p.width * p.cell.units), *want = malloc(n * sizeof(double));
            expected_states(&p, inputs, weight, bias, want);
            const double error = relative_error(k, p.states, want, n);
            CHECK(error < 20 * k->epsilon, "%s, kind %d, %zu units: %g", k->isa, kind, UNITS[i], error);
            free(inputs), free(bias), free(weight), free(want);
            free_problem(&p);
        }
}

/* <w, J v> = <J' w, v>, and J v against a central difference of the equations. */
static void test_derivatives(const trpo_kernels *k) {
    for (int kind = TRPO_GRU; kind <= TRPO_LSTM; kind++)
        for (size_t i = 0; i < sizeof UNITS / sizeof UNITS[0]; i++) {
            problem p = make_problem(k, (trpo_cell_kind)kind, UNITS[i], 11);
            run(&p, 1);
            const size_t n = p.cell.units, items = p.cell.state_items, wide = p.rows * p.width, narrow = p.rows * n;
            void *v = random_values(k, wide, 1, 20), *u = random_values(k, wide, 1, 21),
                 *w = random_values(k, narrow, 1, 22);
            void *tangents = malloc(narrow * k->item_size);
            void *to_inputs = malloc(wide * k->item_size), *to_recurrent = malloc(wide * k->item_size);
            k->cell_jvp(&p.cell, STEPS, SEQUENCES, p.forward, p.kept, p.starts, v, u, tangents, p.scratch, 3);
            k->cell_vjp(&p.cell, STEPS, SEQUENCES, p.backward, p.kept, p.starts, w, to_inputs,
                        kind == TRPO_GRU ? to_recurrent : NULL, p.scratch, 3);
            double left = 0, right = 0, size = 0;
            for (size_t j = 0; j < narrow; j++) left += item(k, w, j) * item(k, tangents, j);
            for (size_t j = 0; j < wide; j++) {
                const double first = item(k, to_inputs, j),
                             second = kind == TRPO_GRU ? item(k, to_recurrent, j) : first;
                right += first * item(k, v, j) + second * item(k, u, j);
                size += fabs(first * item(k, v, j)) + fabs(second * item(k, u, j));
            }
            CHECK(fabs(left - right) < 50 * k->epsilon * size, "%s, kind %d, %zu units: %g and %g", k->isa, kind,
                  UNITS[i], left, right);
            /* along v alone: u moves W_hh h + b_hh in another way at every step, which no weight does */
            for (size_t j = 0; j < wide; j++) set_item(k, u, j, 0);
            k->cell_jvp(&p.cell, STEPS, SEQUENCES, p.forward, p.kept, p.starts, v, u, tangents, p.scratch, 1);
            double *inputs = doubles(k, p.inputs, wide), *bias = doubles(k, p.bias, p.width);
            double *weight = doubles(k, p.weight, p.width * n), *want = malloc(narrow * sizeof(double));
            double *above = malloc(p.rows * items * sizeof(double)), *below = malloc(p.rows * items * sizeof(double));
            const double step = 1e-5;
            for (size_t j = 0; j < wide; j++) inputs[j] += step * item(k, v, j);
            expected_states(&p, inputs, weight, bias, above);
            for (size_t j = 0; j < wide; j++) inputs[j] -= 2 * step * item(k, v, j);
            expected_states(&p, inputs, weight, bias, below);
            for (size_t row = 0; row < p.rows; row++)
                for (size_t j = 0; j < n; j++)
                    want[row * n + j] = (above[row * items + j] - below[row * items + j]) / (2 * step);
            const double error = relative_error(k, tangents, want, narrow);
            CHECK(error < 1e-8 + 50 * k->epsilon, "%s, kind %d, %zu units: %g", k->isa, kind, UNITS[i], error);
            free(v), free(u), free(w), free(tangents), free(to_inputs), free(to_recurrent);
            free(inputs), free(bias), free(weight), free(want), free(above), free(below);
            free_problem(&p);
        }
}

static void test_bits_do_not_depend_on_threads(const trpo_kernels *k) {
    for (int kind = TRPO_GRU; kind <= TRPO_LSTM; kind++) {
        problem p = make_problem(k, (trpo_cell_kind)kind, MOST_UNITS, 3);
        const size_t bytes = p.rows * p.cell.state_items * k->item_size;
        void *one = malloc(bytes);
        run(&p, 1);
        memcpy(one, p.states, bytes);
        for (int threads = 2; threads <= SEQUENCES; threads++) {
            run(&p, threads);
            CHECK(memcmp(one, p.states, bytes) == 0, "%s, kind %d: other bits on %d threads", k->isa, kind, threads);
        }
        free(one);
        free_problem(&p);
    }
}

int main(void) {
    for_every_table(test_forward_is_its_equations);
    for_every_table(test_derivatives);
    for_every_table(test_bits_do_not_depend_on_threads);
    return 0;
}
