/* Where the operands of bf16 products lie while a tile passes a network; trpo/mlp.h says how long they are.
 *
 * Of what a product gives, its float32 numbers are what derivatives multiply and what biases sum, and a copy, rounded, is
 * what the next product reads. */

/* Parts of a thread's scratch, in pairs. */
typedef struct {
    trpo_bfloat16_pair *inputs_along, *inputs_down; /* of all layers */
    trpo_bfloat16_pair *along, *down;               /* of a tangent or cotangent */
} F(narrow_tile_);

/* base: trpo_bfloat16_tile_items pairs */
INLINE F(narrow_tile_) F(narrow_tile_at)(const trpo_mlp *plan, trpo_bfloat16_pair *base) {
    const trpo_bfloat16_layer end = trpo_bfloat16_layer_of(plan, plan->layers);
    F(narrow_tile_)
    tile = {.inputs_along = base, .inputs_down = base + end.along, .along = base + end.along + end.down};
    tile.down = tile.along + plan->tile_activations / 8;
    return tile;
}

/* Columns that layer l's inputs have in a tile. */
INLINE size_t F(input_columns)(const trpo_mlp *plan, int l) { return l ? plan->padded[l] : plan->widths[0]; }
