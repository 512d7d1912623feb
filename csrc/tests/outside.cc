// What an outside program in C++ does with the library: a table, a network's plan, a section of threads.
#include "trpo/trpo.h"

#include <vector>

static void add_one(void *sums, int i, int) { static_cast<int *>(sums)[i] += 1; }

// 0 where all is as the headers say.
int outside() {
    if (trpo_dispatch(nullptr) != 0) return 1;
    const trpo_kernels *k = trpo_kernels_for(TRPO_FLOAT64);
    const std::vector<double> v{1, 2, 3};
    if (k->dot(v.size(), v.data(), v.data()) != 14) return 2;

    const size_t widths[] = {3, 8, 2};
    trpo_mlp network;
    k->mlp_plan(2, widths, TRPO_TANH, &network);
    if (network.parameters != 3 * 8 + 8 + 8 * 2 + 2) return 3;
    const trpo_critic_workspace work = trpo_critic_workspace_for(&network, k->item_size, 32, 1, 0);
    if (work.bytes == 0) return 4;

    trpo_set_threads(2);
    std::vector<int> sums(100);
    trpo_parallel(100, 2, add_one, sums.data());
    for (int sum : sums)
        if (sum != 1) return 5;
    return 0;
}
