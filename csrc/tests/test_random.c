/* Philox against the known answers of its authors' distribution, and the shape of what is drawn from it. */
#include "check.h"

#include <float.h>

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

/* Against long double; a 64-bit hash (FNV-1a) of their bits, which are the same on every CPU and hold for all that has no
 * long double. */
static void normals_are_those_of_box_and_muller(void) {
    enum { N = 10000 };
    static double draws[N];
    const trpo_random_key key = {.seed = 11, .stream = 2, .step = 5};
    trpo_random_normal(&key, 1, N, draws);
    uint64_t hash = 0xcbf29ce484222325u;
    const int longer = DBL_EPSILON > LDBL_EPSILON && !under_memcheck();
    for (int i = 0; i < N; i += 2) {
        uint64_t bits[2];
        trpo_random_bits(&key, 1, (uint32_t)i / 2, bits);
        const long double u = ldexpl((long double)((bits[0] >> 11) + 1), -53), turn = 6.28318530717958647692528676656L;
        const long double v = ldexpl((long double)((bits[1] >> 11) + 1), -53), radius = sqrtl(-2 * logl(u));
        const long double exact[2] = {radius * cosl(turn * v), radius * sinl(turn * v)};
        for (int j = 0; j < 2; j++) {
            /* 2 ulp of the angle's function, half of 2 of the logarithm, two roundings; long double's own angle */
            const double allowed = 4 * DBL_EPSILON * fabs((double)exact[j]) + 1e-18;
            CHECK(!longer || fabsl((long double)draws[i + j] - exact[j]) <= allowed, "draw %d: %.17g", i + j,
                  draws[i + j]);
            uint64_t word;
            memcpy(&word, &draws[i + j], sizeof word);
            hash = (hash ^ word) * 0x100000001b3u;
        }
    }
    CHECK(hash == 0x315e577691d70de3u, "%016llx", (unsigned long long)hash);
    for (int count = 1; count < 9; count++) {
        double some[9] = {0};
        trpo_random_normal(&key, 1, count, some);
        CHECK(memcmp(some, draws, (size_t)count * sizeof(double)) == 0 && some[count] == 0, "%d draws", count);
    }
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
    normals_are_those_of_box_and_muller();
    streams_steps_and_rows_differ();
    a_permutation_holds_each_index_once();
    return 0;
}
