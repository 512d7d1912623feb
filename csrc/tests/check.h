/* What the C tests share: a check that names what failed, random data, and a loop over instruction sets. */
#ifndef TRPO_TESTS_CHECK_H
#define TRPO_TESTS_CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trpo/kernels.h"
#include "trpo/threads.h"

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\n");                                                                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Memcheck is fifty times slower, so that cases which differ from others in nothing but their size are left out; it
 * computes long double in double, and flushes no denormal numbers. */
static inline int under_memcheck(void) { return getenv("TRPO_TESTS_MEMCHECK") != NULL; }

/* n draws around zero, of either precision, the same for both up to rounding. */
static inline void *random_values(const trpo_kernels *k, size_t n, double scale, uint64_t seed) {
    double *draws = malloc((n + 1) * sizeof(double));
    void *values = malloc((n + 1) * k->item_size);
    const trpo_random_key key = {.seed = seed};
    trpo_random_normal(&key, 0, (int)n, draws);
    for (size_t i = 0; i < n; i++) {
        if (k->item_size == sizeof(float))
            ((float *)values)[i] = (float)(scale * draws[i]);
        else
            ((double *)values)[i] = scale * draws[i];
    }
    free(draws);
    return values;
}

static inline double item(const trpo_kernels *k, const void *values, size_t i) {
    return k->item_size == sizeof(float) ? (double)((const float *)values)[i] : ((const double *)values)[i];
}

/* `value` as the table's precision has it */
static inline double rounded(const trpo_kernels *k, double value) {
    return k->item_size == sizeof(float) ? (double)(float)value : value;
}

static inline void set_item(const trpo_kernels *k, void *values, size_t i, double value) {
    if (k->item_size == sizeof(float))
        ((float *)values)[i] = (float)value;
    else
        ((double *)values)[i] = value;
}

/* ||a - b|| / ||b|| */
static inline double relative_error(const trpo_kernels *k, const void *a, const double *b, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (item(k, a, i) - b[i]) * (item(k, a, i) - b[i]);
        norm += b[i] * b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

/* Runs test(kernels) for every instruction set of this CPU and both precisions, on as many threads as it has room for. */
static inline void for_every_table(void (*test)(const trpo_kernels *)) {
    trpo_set_threads(TRPO_MAX_THREADS);
    for (int i = 0; trpo_available_isa(i); i++) {
        CHECK(trpo_dispatch(trpo_available_isa(i)) == 0, "%s", trpo_available_isa(i));
        for (int dtype = TRPO_FLOAT32; dtype <= TRPO_FLOAT64; dtype++) {
            const trpo_kernels *k = trpo_kernels_for((trpo_dtype)dtype);
            CHECK(strcmp(k->isa, trpo_available_isa(i)) == 0, "table of %s for %s", k->isa, trpo_available_isa(i));
            test(k);
        }
    }
}

#endif
