/* Fits of a value network: steps over any rows, from any numbers. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    arena a = {.k = take_table(&in)};
    const trpo_kernels *k = a.k;
    const int layers = 1 + (int)take(&in, 4), threads = 1 + (int)take(&in, 3);
    size_t widths[5];
    for (int l = 0; l < layers; l++) widths[l] = 1 + take(&in, 40);
    widths[layers] = 1;
    trpo_mlp plan;
    k->mlp_plan(layers, widths, (trpo_activation)take(&in, 9), &plan);
    const size_t rows = 1 + take(&in, 1024), n = plan.parameters, bytes = n * k->item_size;
    const struct trpo_bfloat16_kernels *narrow =
        k->critic_step_narrow && take(&in, 2) ? trpo_bfloat16_kernels_for("portable") : NULL;
    void *parameters = arena_values(&a, &in, n);
    arena_constant(&a, parameters);
    const void *m = arena_constant(&a, arena_values(&a, &in, n));
    void *v = arena_values(&a, &in, n);
    for (size_t i = 0; i < n; i++) set_item(k, v, i, fabs(item(k, v, i)));
    arena_constant(&a, v);
    const size_t batch = 1 + take(&in, rows);
    const trpo_critic_workspace w = trpo_critic_workspace_for(&plan, k->item_size, batch, threads, narrow != NULL);
    trpo_critic_fit fit = {.network = &plan,
                           .observations = arena_constant(&a, arena_values(&a, &in, rows * widths[0])),
                           .returns = arena_constant(&a, arena_values(&a, &in, rows)),
                           .learning_rate = fabs(take_value(&in)) / 100,
                           .beta1 = (double)take(&in, 255) / 256,
                           .beta2 = (double)take(&in, 255) / 256,
                           .epsilon = take(&in, 4) ? 1e-8 : 0,
                           .weight_decay = take(&in, 4) ? 0 : 0.1,
                           .threads = w.threads,
                           .blocks = w.blocks};
    for (int i = 0; i < 3; i++) fit.state[i] = arena_take(&a, w.state[i].bytes, k->item_size);
    fit.sums = arena_take(&a, w.sums.bytes, k->item_size), fit.squares = arena_take(&a, w.squares.bytes, 8);
    fit.scratch = arena_take(&a, w.scratch.bytes, k->item_size);
    fit.bfloat16 = (trpo_critic_bfloat16){narrow, arena_take(&a, w.narrow.bytes, 4)};
    int64_t *order = arena_take(&a, batch * sizeof(int64_t), 0);
    for (size_t i = 0; i < batch; i++) order[i] = (int64_t)(in.left ? take(&in, rows) : i * 7 % rows);
    arena_constant(&a, order);

    void *saved[3];
    for (int i = 0; i < 3; i++) saved[i] = arena_take(&a, bytes, k->item_size);
    k->critic_load(&fit, parameters, m, v);
    k->critic_save(&fit, saved[0], saved[1], saved[2]);
    CHECK(memcmp(saved[0], parameters, bytes) == 0 && memcmp(saved[1], m, bytes) == 0 &&
              memcmp(saved[2], v, bytes) == 0,
          "a fit saves what it did not load");
    for (int64_t step = 1; step <= 3; step++) {
        double squares;
        const size_t count = 1 + take(&in, batch);
        const trpo_adam_outcome outcome =
            (narrow ? k->critic_step_narrow : k->critic_step)(&fit, count, order, step, &squares);
        k->critic_save(&fit, saved[0], saved[1], saved[2]);
        const int finite = finite_items(k, saved[0], n), moments = finite_items(k, saved[2], n);
        const trpo_adam_outcome wanted =
            !finite ? TRPO_ADAM_PARAMETER : (moments ? TRPO_ADAM_FINITE : TRPO_ADAM_SECOND_MOMENT);
        CHECK(outcome == wanted, "%s: outcome %d of a step whose numbers say %d", k->isa, (int)outcome, (int)wanted);
    }
    arena_close(&a);
    return 0;
}
