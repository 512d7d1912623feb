/* Philox against the known answers of its authors' distribution, and the shape of what is drawn from it. */
#include "check.h"

static void known_answers(void) {
    const uint32_t cases[3][10] = {
        /* counter, key, answer */
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        trpo_philox(cases[i], cases[i] + 4, out);
        CHECK(memcmp(out, cases[i] + 6, sizeof out) == 0, "case %d gives %08x %08x %08x %08x", i, out[0], out[1],
              out[2], out[3]);
    }
}

static void normals_have_their_moments(void) {
    enum { N = 100000 };
    double *draws = malloc(N * sizeof(double)), mean = 0, square = 0, fourth = 0;
    const trpo_random_key key = {.seed = 7, .stream = 1, .step = 3};
    trpo_random_normal(&key, 5, N, draws);
    for (int i = 0; i < N; i++) {
        mean += draws[i] / N;
        square += draws[i] * draws[i] / N;
        fourth += draws[i] * draws[i] * draws[i] * draws[i] / N;
    }
    /* five standard errors: a right generator fails for less than one seed in a million */
    CHECK(fabs(mean) < 5 / sqrt(N), "mean %g", mean);
    CHECK(fabs(square - 1) < 5 * sqrt(2.0 / N), "variance %g", square);
    CHECK(fabs(fourth - 3) < 5 * sqrt(96.0 / N), "fourth moment %g", fourth);
    free(draws);
}

static void streams_steps_and_rows_differ(void) {
    const trpo_random_key keys[] = {{.seed = 1},
                                    {.seed = 2},
                                    {.seed = 1, .stream = 1},
                                    {.seed = 1, .step = 1},
                                    {.seed = 1, .step = 1ull << 32},
                                    {.seed = 1ull << 32 | 1}};
    enum { KEYS = sizeof keys / sizeof keys[0] };
    uint64_t drawn[2 * KEYS][2];
    for (int i = 0; i < 2 * KEYS; i++) trpo_random_bits(&keys[i / 2], (uint32_t)i % 2, 0, drawn[i]);
    for (int i = 0; i < 2 * KEYS; i++)
        for (int j = 0; j < i; j++) CHECK(drawn[i][0] != drawn[j][0], "draws %d and %d coincide", i, j);
}

static void a_permutation_holds_each_index_once(void) {
    for (int64_t n = 0; n < 40; n++) {
        int64_t order[40];
        int seen[40] = {0};
        const trpo_random_key key = {.seed = 3, .step = (uint64_t)n};
        trpo_random_permutation(&key, n, order);
        for (int64_t i = 0; i < n; i++) {
            CHECK(order[i] >= 0 && order[i] < n, "entry %lld of %lld", (long long)order[i], (long long)n);
            CHECK(!seen[order[i]]++, "%lld twice", (long long)order[i]);
        }
    }
}

int main(void) {
    known_answers();
    normals_have_their_moments();
    streams_steps_and_rows_differ();
    a_permutation_holds_each_index_once();
    return 0;
}
