/* Minibatch gradient of the mean squared error of a value network, and Adam. */

/* gradient (plan->parameters items, OUT) of mean (V(s) - R)^2 over the `count` rows that `order` names; returns the sum
 * of squared errors.
 *   forward, backward: packs of the current parameters.  gathered: TRPO_TILE_ROWS x widths[0].
 *   sums: sum_items.  scratch: scratch_items. */
static double F(critic_gradient)(const trpo_mlp *plan, const void *forward, const void *backward, size_t count,
                                 const int64_t *order, const void *observations_, const void *returns_, void *gathered_,
                                 void *sums, void *scratch_, void *gradient) {
    const REAL *observations = observations_, *returns = returns_;
    REAL *gathered = gathered_, *scratch = scratch_;
    const size_t inputs = plan->widths[0], padded = plan->padded[plan->layers], buffer = plan->tile_activations / 4;
    REAL *tile = scratch + plan->tile_activations, *d = scratch + 2 * buffer;
    const REAL *values = tile + TRPO_TILE_ROWS * plan->activation_column[plan->layers];
    double loss = 0;
    for (size_t start = 0; start < count; start += TRPO_TILE_ROWS) {
        const size_t rows = count - start < TRPO_TILE_ROWS ? count - start : TRPO_TILE_ROWS;
        for (size_t i = 0; i < rows; i++)
            memcpy(gathered + i * inputs, observations + (size_t)order[start + i] * inputs, inputs * sizeof(REAL));
        F(mlp_forward)(plan, forward, rows, gathered, tile);
        for (size_t i = 0; i < rows; i++) {
            const double error = (double)values[i * padded] - (double)returns[order[start + i]];
            loss += error * error;
            d[i * padded] = (REAL)(2 * error / (double)count);
            for (size_t j = 1; j < padded; j++) d[i * padded + j] = 0;
        }
        F(mlp_vjp)(plan, backward, rows, gathered, tile, d, scratch, sums, start == 0, NULL);
    }
    F(mlp_reduce)(plan, 1, sums, gradient);
    return loss;
}

/* One step of Adam (Kingma & Ba 2015), number `step` counted from 1, with torch's placing of epsilon. All arrays: n
 * items; g is not modified. Returns what came out non-finite. A v that overflowed is infinite for good, and its parameter
 * would never move again. */
static trpo_adam_outcome F(adam)(size_t n, double learning_rate, double beta1, double beta2, double epsilon,
                                 int64_t step, const void *g_, void *m_, void *v_, void *theta_) {
    const REAL *g = g_;
    REAL *m = m_, *v = v_, *theta = theta_;
    const REAL b1 = (REAL)beta1, b2 = (REAL)beta2, eps = (REAL)epsilon;
    const REAL c1 = (REAL)(1 - beta1), c2 = (REAL)(1 - beta2);
    const REAL rate = (REAL)(learning_rate / -scalar_expm1((double)step * scalar_log(beta1)));
    const REAL root = (REAL)(1 / sqrt(-scalar_expm1((double)step * scalar_log(beta2))));
    /* Of an integer the order of a reduction is the compiler's to choose: a sum of reals would make each item wait for
     * the one before. */
    INT lost_parameter = 0, lost_moment = 0;
    for (size_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + c1 * g[i];
        v[i] = b2 * v[i] + c2 * g[i] * g[i];
        theta[i] -= rate * m[i] / (F(square_root)(v[i]) * root + eps);
        lost_parameter |= !(theta[i] - theta[i] == 0);
        lost_moment |= !(v[i] - v[i] == 0);
    }
    return lost_parameter ? TRPO_ADAM_PARAMETER : (lost_moment ? TRPO_ADAM_SECOND_MOMENT : TRPO_ADAM_FINITE);
}
