/* Passes of recurrent cells over sequences. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    arena a = {.k = take_table(&in)};
    const trpo_kernels *k = a.k;
    trpo_cell cell;
    k->cell_plan((trpo_cell_kind)take(&in, 2), 1 + take(&in, 40), &cell);
    const size_t steps = take(&in, 7), sequences = take(&in, 100), rows = steps * sequences, units = cell.units;
    const int threads = 1 + (int)take(&in, 3);
    const size_t width = cell.gates * units, item_size = k->item_size;
    const void *weight = arena_constant(&a, arena_values(&a, &in, width * units));
    const void *bias = arena_constant(&a, arena_values(&a, &in, width));
    const void *inputs = arena_constant(&a, arena_values(&a, &in, rows * width));
    const void *first = arena_constant(&a, arena_values(&a, &in, sequences * cell.state_items));
    uint8_t *starts = take(&in, 4) ? arena_take(&a, rows, 0) : NULL;
    for (size_t i = 0; starts && i < rows; i++) starts[i] = take(&in, 3) == 1;
    void *forward = arena_take(&a, cell.forward_items * item_size, item_size);
    void *backward = take(&in, 4) ? arena_take(&a, cell.backward_items * item_size, item_size) : NULL;
    void *states = arena_take(&a, rows * cell.state_items * item_size, item_size);
    void *again = arena_take(&a, rows * cell.state_items * item_size, 0);
    void *kept = arena_take(&a, rows * cell.kept_items * item_size, item_size);
    void *scratch = arena_take(&a, sequences * cell.scratch_items * item_size, item_size);
    k->cell_pack(&cell, weight, bias, forward, backward);
    k->cell_forward(&cell, steps, sequences, forward, inputs, starts, first, states, kept, scratch, threads);
    k->cell_forward(&cell, steps, sequences, forward, inputs, starts, first, again, NULL, scratch, 1);
    CHECK(memcmp(states, again, rows * cell.state_items * item_size) == 0, "%s: threads, or what is kept, change bits",
          k->isa);
    /* After a start nothing is left of before: the state is bounded by its cell's activations, whatever it was. */
    const int sound =
        finite_items(k, inputs, rows * width) && finite_items(k, weight, width * units) && finite_items(k, bias, width);
    for (size_t i = 0; starts && sound && i < rows; i++)
        for (size_t j = 0; starts[i] && j < units; j++) {
            const double h = item(k, states, i * cell.state_items + j);
            CHECK(fabs(h) <= 1, "%s: the state is %g after a start", k->isa, h);
        }
    if (backward) {
        const void *u = arena_constant(&a, arena_values(&a, &in, rows * width));
        void *tangents = arena_take(&a, rows * units * item_size, item_size);
        k->cell_jvp(&cell, steps, sequences, forward, kept, starts, inputs, u, tangents, scratch, threads);
        const void *cotangents = arena_constant(&a, arena_values(&a, &in, rows * units));
        void *out = arena_take(&a, rows * width * item_size, item_size);
        void *of_u = cell.kind == TRPO_GRU ? arena_take(&a, rows * width * item_size, item_size) : NULL;
        k->cell_vjp(&cell, steps, sequences, backward, kept, starts, cotangents, out, of_u, scratch, threads);
    }
    arena_close(&a);
    return 0;
}
