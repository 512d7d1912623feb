/* The joint distribution of an action, which is a single one of distributions.h or a product of several, independent of each
 * other: log-probabilities, entropies and divergences add up, and the Fisher information has a block for each part.
 *
 * The outputs of the parts stand one after the other, without room behind each, so that a part is worked on in a copy; so do
 * their actions, which are REAL, choices as whole numbers, their masks, and their items of log_std. What inverse_std,
 * precision and sums of log_std point to has trpo_log_std_items. */

/* A part of a product, and where it begins in a row of outputs, of an action, of log_std and of a mask. */
typedef struct {
    const trpo_action_layout *part;
    size_t output, component, log_std, mask;
} F(place_);

INLINE F(place_) F(place_behind)(F(place_) at) {
    return (F(place_)){.part = at.part + 1,
                       .output = at.output + at.part->outputs,
                       .component = at.component + at.part->components,
                       .log_std = at.log_std + trpo_log_std_items(at.part),
                       .mask = at.mask + at.part->mask_items};
}

#define FOR_PARTS(layout)                                                                                              \
    for (F(place_) at = {.part = (layout)->parts}; at.part < (layout)->parts + (layout)->count;                        \
         at = F(place_behind)(at))

/* copy: F(ROW_) items, OUT: those of the part, and zeros up to the next whole vector. */
INLINE void F(copy_part)(F(place_) at, const REAL *row, REAL *copy) {
    const size_t n = at.part->outputs;
    memcpy(copy, row + at.output, n * sizeof(REAL));
    for (size_t j = n; j < F(round_up)(n); j++) copy[j] = 0;
}

/* The part's action, as functions of a single distribution read it. choices: F(ROW_) items, overwritten. */
INLINE const void *F(part_action)(F(place_) at, const REAL *action, int64_t *choices) {
    action += at.component;
    if (at.part->distribution == TRPO_GAUSSIAN) return action;
    for (size_t k = 0; k < at.part->components; k++) choices[k] = (int64_t)action[k];
    return choices;
}

NOINLINE void F(product_resolve)(const trpo_action_layout *layout, const uint8_t *masks, size_t rows, REAL *outputs,
                                 size_t stride) {
    REAL copy[F(ROW_)];
    for (size_t i = 0; i < rows; i++, outputs += stride) {
        FOR_PARTS(layout) {
            F(copy_part)(at, outputs, copy);
            F(resolve_rows)(at.part, masks ? masks + i * layout->mask_items + at.mask : NULL, 1, copy, 0);
            memcpy(outputs + at.output, copy, at.part->outputs * sizeof(REAL));
        }
    }
}

/* As resolve_rows. */
INLINE void F(joint_resolve)(const trpo_action_layout *layout, const uint8_t *masks, size_t rows, REAL *outputs,
                             size_t stride) {
    if (layout->distribution == TRPO_PRODUCT)
        F(product_resolve)(layout, masks, rows, outputs, stride);
    else
        F(resolve_rows)(layout, masks, rows, outputs, stride);
}

NOINLINE void F(product_metric)(const trpo_action_layout *layout, const REAL *output, REAL *metric) {
    REAL copy[F(ROW_)], part[F(ROW_)];
    FOR_PARTS(layout) {
        if (at.part->distribution == TRPO_GAUSSIAN) {
            memset(metric + at.output, 0, at.part->outputs * sizeof(REAL));
            continue;
        }
        F(copy_part)(at, output, copy);
        F(row_metric)(at.part, copy, part);
        memcpy(metric + at.output, part, at.part->outputs * sizeof(REAL));
    }
}

/* As row_metric; zeros for means. */
INLINE void F(joint_metric)(const trpo_action_layout *layout, const REAL *output, REAL *metric) {
    if (layout->distribution == TRPO_PRODUCT)
        F(product_metric)(layout, output, metric);
    else
        F(row_metric)(layout, output, metric);
}

NOINLINE double F(product_log_prob)(const trpo_action_layout *layout, const REAL *output, const REAL *action,
                                    const double *inverse_std, double log_normalizer) {
    int64_t choices[F(ROW_)];
    double sum = 0;
    FOR_PARTS(layout)
    sum +=
        F(row_log_prob)(at.part, output + at.output, F(part_action)(at, action, choices), inverse_std + at.log_std, 0);
    return sum - log_normalizer;
}

/* As row_log_prob. */
INLINE double F(joint_log_prob)(const trpo_action_layout *layout, const REAL *output, const void *action,
                                const double *inverse_std, double log_normalizer) {
    if (layout->distribution == TRPO_PRODUCT)
        return F(product_log_prob)(layout, output, action, inverse_std, log_normalizer);
    return F(row_log_prob)(layout, output, action, inverse_std, log_normalizer);
}

NOINLINE double F(product_kl)(const trpo_action_layout *layout, size_t rows, const REAL *a, const REAL *b,
                              size_t stride, const double *b_inverse_std) {
    REAL first[F(ROW_)], second[F(ROW_)];
    double sum = 0;
    for (; rows > 0; rows--, a += stride, b += stride) {
        FOR_PARTS(layout) {
            F(copy_part)(at, a, first);
            F(copy_part)(at, b, second);
            sum += F(kl_rows)(at.part, 1, first, second, 0, b_inverse_std + at.log_std);
        }
    }
    return sum;
}

/* As kl_rows. */
INLINE double F(joint_kl)(const trpo_action_layout *layout, size_t rows, const REAL *a, const REAL *b, size_t stride,
                          const double *b_inverse_std) {
    if (layout->distribution == TRPO_PRODUCT) return F(product_kl)(layout, rows, a, b, stride, b_inverse_std);
    return F(kl_rows)(layout, rows, a, b, stride, b_inverse_std);
}

NOINLINE double F(product_entropy)(const trpo_action_layout *layout, const REAL *output, const REAL *metric) {
    REAL outputs[F(ROW_)], metrics[F(ROW_)];
    double sum = 0;
    FOR_PARTS(layout) {
        if (at.part->distribution == TRPO_GAUSSIAN) continue;
        F(copy_part)(at, output, outputs);
        F(copy_part)(at, metric, metrics);
        sum += F(row_entropy)(at.part, outputs, metrics);
    }
    return sum;
}

/* As row_entropy: without a Gaussian's, which is log_std's alone. */
INLINE double F(joint_entropy)(const trpo_action_layout *layout, const REAL *output, const REAL *metric) {
    if (layout->distribution == TRPO_PRODUCT) return F(product_entropy)(layout, output, metric);
    return F(row_entropy)(layout, output, metric);
}

NOINLINE void F(product_score)(const trpo_action_layout *layout, const REAL *output, const REAL *metric,
                               const REAL *action, const double *inverse_std, double weight, REAL *score) {
    int64_t choices[F(ROW_)];
    FOR_PARTS(layout)
    F(row_score)(at.part, output + at.output, metric + at.output, F(part_action)(at, action, choices),
                 inverse_std + at.log_std, weight, score + at.output);
}

/* As row_score. */
INLINE void F(joint_score)(const trpo_action_layout *layout, const REAL *output, const REAL *metric, const void *action,
                           const double *inverse_std, double weight, REAL *score) {
    if (layout->distribution == TRPO_PRODUCT)
        F(product_score)(layout, output, metric, action, inverse_std, weight, score);
    else
        F(row_score)(layout, output, metric, action, inverse_std, weight, score);
}

/* As row_log_std_score; nothing where there is no Gaussian. */
INLINE void F(joint_log_std_score)(const trpo_action_layout *layout, const REAL *output, const void *action,
                                   const double *inverse_std, double weight, double *sums) {
    if (layout->distribution == TRPO_GAUSSIAN) F(row_log_std_score)(layout, output, action, inverse_std, weight, sums);
    if (layout->distribution != TRPO_PRODUCT) return;
    FOR_PARTS(layout)
    if (at.part->distribution == TRPO_GAUSSIAN)
        F(row_log_std_score)(at.part, output + at.output, (const REAL *)action + at.component, inverse_std + at.log_std,
                             weight, sums + at.log_std);
}

/* As row_entropy_score; nothing for means. */
INLINE void F(joint_entropy_score)(const trpo_action_layout *layout, const REAL *output, const REAL *metric,
                                   double weight, REAL *score) {
    if (layout->distribution == TRPO_GAUSSIAN) return;
    if (layout->distribution != TRPO_PRODUCT) {
        F(row_entropy_score)(layout, output, metric, weight, score);
        return;
    }
    FOR_PARTS(layout)
    if (at.part->distribution != TRPO_GAUSSIAN)
        F(row_entropy_score)(at.part, output + at.output, metric + at.output, weight, score + at.output);
}

/* As fisher_rows for the discrete parts; means times `precision`, which has the scale in it. */
NOINLINE void F(product_fisher)(const trpo_action_layout *layout, size_t rows, const REAL *metric,
                                const REAL *precision, double scale, REAL *t, size_t stride) {
    REAL metrics[F(ROW_)], tangents[F(ROW_)];
    for (; rows > 0; rows--, metric += stride, t += stride) {
        FOR_PARTS(layout) {
            const size_t n = at.part->outputs;
            if (at.part->distribution == TRPO_GAUSSIAN) {
                for (size_t j = 0; j < n; j++) t[at.output + j] *= precision[at.log_std + j];
                continue;
            }
            F(copy_part)(at, metric, metrics);
            F(copy_part)(at, t, tangents);
            F(fisher_rows)(at.part, 1, metrics, scale, tangents, 0);
            memcpy(t + at.output, tangents, n * sizeof(REAL));
        }
    }
}

/* Draws of the Gaussians come first, in order, and those of the choices from the block behind them on. */
NOINLINE void F(product_draw)(const trpo_action_layout *layout, const trpo_random_key *key, uint32_t row,
                              const REAL *output, const double *inverse_std, REAL *action) {
    double normal[TRPO_MAX_OUTPUTS + 1], uniform[TRPO_MAX_OUTPUTS + 1];
    int64_t choices[F(ROW_)];
    REAL copy[F(ROW_)];
    const size_t gaussians = trpo_log_std_items(layout), skipped = (gaussians + 1) / 2 * 2;
    if (key) {
        trpo_random_normal(key, row, (int)gaussians, normal);
        trpo_random_uniform(key, row, (int)(skipped + layout->components - gaussians), uniform);
    }
    FOR_PARTS(layout) {
        F(copy_part)(at, output, copy);
        if (at.part->distribution == TRPO_GAUSSIAN) {
            F(row_choose)(at.part, key ? normal + at.log_std : NULL, copy, inverse_std + at.log_std,
                          action + at.component);
            continue;
        }
        F(row_choose)(at.part, key ? uniform + skipped + at.component - at.log_std : NULL, copy, NULL, choices);
        for (size_t k = 0; k < at.part->components; k++) action[at.component + k] = (REAL)choices[k];
    }
}

/* As row_draw. */
INLINE void F(joint_draw)(const trpo_action_layout *layout, const trpo_random_key *key, uint32_t row,
                          const REAL *output, const double *inverse_std, void *action) {
    if (layout->distribution == TRPO_PRODUCT)
        F(product_draw)(layout, key, row, output, inverse_std, action);
    else
        F(row_draw)(layout, key, row, output, inverse_std, action);
}
