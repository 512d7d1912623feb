/* TRPO's mathematics in C11: all that a trust-region step of an MLP policy needs, and nothing that knows Python.
 *
 * csrc/examples/step.c is one complete step. In order:
 *
 *   trpo_dispatch, trpo_kernels_for      once: the instruction set, and its table of kernels for a precision
 *   k->mlp_plan                          where a network's parameters and activations lie
 *   trpo_policy_workspace_for, _place    how much memory a batch takes, which the caller allocates, and its parts in it
 *   k->policy_bind                       the pass at theta_old that everything else shares
 *   k->policy_gradient, k->policy_fisher g, and F v for conjugate gradient, whose vector operations the table has, too
 *   k->policy_evaluate                   improvement and KL of a trial step, for the line search
 *
 * The C files of csrc and those of csrc/isa for the machine, each with the flags for its instruction set, are the whole
 * library: csrc/library.mk has them, and `make -C csrc` makes libtrpo.a, which may become part of a shared library, too. It
 * needs the C library and POSIX threads, not the mathematics library. C++17 may include the headers.
 *
 * What holds throughout:
 * - Memory is the caller's. Nothing here allocates but the pool of threads, once, and what counts a machine's cores, which
 *   frees it again; nothing keeps a pointer beyond the call but the structs that the caller fills. Arrays are contiguous,
 *   and aligned as their items are.
 * - Sizes, offsets and values that index memory are not checked: a header says where that is the caller's part.
 * - Numbers that are not finite travel to the results, which are NaN or named by an outcome; nothing is trapped, and errno
 *   means nothing.
 * - Functions may run in several threads at once as long as no two write the same memory. Those that take a number of
 *   threads, or a batch, share one pool: a second section under way meanwhile runs in its caller alone, to the same bits.
 *   trpo_dispatch and trpo_set_threads are for one thread at a time.
 * - Results depend on the instruction set, never on the number of threads or on where memory lies. */
#ifndef TRPO_TRPO_H
#define TRPO_TRPO_H

#include "trpo/critic.h"
#include "trpo/kernels.h"
#include "trpo/kfac.h"
#include "trpo/mlp.h"
#include "trpo/policy.h"
#include "trpo/random.h"
#include "trpo/recurrent.h"
#include "trpo/threads.h"
#include "trpo/types.h"

#endif
