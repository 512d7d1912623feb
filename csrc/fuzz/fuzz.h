/* What the fuzz targets share: decoding of bytes, buffers of the exact size, at places that are aligned as their items are and
 * no more, and tables of both precisions. A check that fails ends the process, which libFuzzer reports with the input. */
#ifndef TRPO_FUZZ_H
#define TRPO_FUZZ_H

#include "../tests/policy_fixture.h"

typedef struct {
    const uint8_t *data;
    size_t left;
} input;

/* A number below `bound`, 0 when the bytes are at their end. */
static inline size_t take(input *in, size_t bound) {
    size_t value = 0;
    for (size_t most = bound - 1; most > 0 && in->left > 0; most >>= 8, in->left--) value = value << 8 | *in->data++;
    return value % bound;
}

/* A number that arithmetic may stumble over, or a small one. */
static inline double take_value(input *in) {
    static const double hostile[] = {0,      -0.0,    INFINITY, -INFINITY, NAN,    1e-320, 1e-45,
                                     3.4e38, -3.4e38, 1.7e308,  -1.7e308,  1e-300, 1e20,   -1e4};
    const size_t code = take(in, 256);
    return code < 14 ? hostile[code] : ((double)code - 128) / 16;
}

/* Sets some items of an array. */
static inline void disturb(input *in, const trpo_kernels *k, const void *values, size_t n) {
    for (size_t count = n ? take(in, 4) : 0; count > 0; count--) {
        const size_t at = take(in, n);
        set_item(k, (void *)values, at, take_value(in));
    }
}

static inline int finite_items(const trpo_kernels *k, const void *values, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(item(k, values, i))) return 0;
    return 1;
}

/* Every array of a call, freed together. */
typedef struct {
    const trpo_kernels *k;
    void *blocks[64], *copies[64], *values[64];
    size_t bytes[64];
    int count;
} arena;

/* n items at the end of their block, an item's size off the alignment of malloc where `skewed`. */
static inline void *arena_take(arena *a, size_t bytes, size_t skew) {
    CHECK(a->count < 64, "more arrays than the harness keeps");
    char *block = malloc(bytes + skew + (bytes + skew == 0));
    a->blocks[a->count] = block, a->copies[a->count] = NULL;
    a->values[a->count] = block + skew, a->bytes[a->count] = bytes;
    memset(block, 0xff, bytes + skew); /* NaN where nothing is written */
    return a->values[a->count++];
}

static inline void *arena_values(arena *a, input *in, size_t n) {
    const size_t skew = take(in, 2) * a->k->item_size;
    void *random = random_values(a->k, n, take(in, 8) ? 1 : 1e10, take(in, 256));
    void *values = arena_take(a, n * a->k->item_size, skew);
    memcpy(values, random, n * a->k->item_size);
    free(random);
    disturb(in, a->k, values, n);
    return values;
}

/* From here on the array, the last one taken, is one that nothing may change. */
static inline const void *arena_constant(arena *a, void *values) {
    const int last = a->count - 1;
    CHECK(values == a->values[last], "not the last array");
    a->copies[last] = malloc(a->bytes[last] + 1);
    memcpy(a->copies[last], values, a->bytes[last]);
    return values;
}

static inline void arena_close(arena *a) {
    for (int i = 0; i < a->count; i++) {
        CHECK(!a->copies[i] || memcmp(a->copies[i], a->values[i], a->bytes[i]) == 0, "array %d was changed", i);
        free(a->copies[i]), free(a->blocks[i]);
    }
}

static inline const trpo_kernels *take_table(input *in) {
    trpo_set_threads(8);
    trpo_dispatch(NULL);
    return (take(in, 2) ? trpo_narrow_kernels_for : trpo_kernels_for)((trpo_dtype)take(in, 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
