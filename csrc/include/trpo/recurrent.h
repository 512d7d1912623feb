/* Recurrent cells over sequences, with the parameters of torch.nn.GRUCell and LSTMCell: weight_hh (gates * units, units)
 * row-major and bias_hh. What comes of a step's observation, W_ih x + b_ih, is computed elsewhere, for all steps at once.
 *
 *   GRU   r = sigma(x_r + u_r)  z = sigma(x_z + u_z)  n = tanh(x_n + r u_n)  h' = (1 - z) n + z h
 *   LSTM  i, f, o = sigma(x + u)  g = tanh(x_g + u_g)  c' = f c + i g  h' = o tanh(c')
 *   with u = W_hh h + b_hh; the gates are r, z, n and i, f, g, o, one after the other.
 *
 * Arrays over sequences are time-major: steps x sequences x items. A sequence may hold several episodes: before a step that
 * starts one the state is zero. Nothing of a sequence depends on the others, to the bit. */
#ifndef TRPO_RECURRENT_H
#define TRPO_RECURRENT_H

#include "trpo/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { TRPO_GRU = 0, TRPO_LSTM = 1 } trpo_cell_kind;

typedef struct {
    trpo_cell_kind kind;
    size_t units;
    size_t gates;         /* 3 or 4 */
    size_t state_items;   /* units: h; of an LSTM twice that: h, then c */
    size_t padded;        /* units, rounded up to the vector length of the table that planned this */
    size_t forward_items; /* pack of W_hh' and the padded bias */
    size_t backward_items;
    size_t kept_items;    /* for a step of a sequence: what the two derivative passes read */
    size_t scratch_items; /* for a sequence */
} trpo_cell;

#ifdef __cplusplus
}
#endif

#endif
