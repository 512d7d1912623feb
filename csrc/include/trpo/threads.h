/* A small fork-safe pool of POSIX threads, made at first use and parked when idle. */
#ifndef TRPO_THREADS_H
#define TRPO_THREADS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TRPO_MAX_THREADS = 256 };

/* Threads that a parallel section may use, the caller's included. Until trpo_set_threads is called: trpo_usable_cores, at
 * most OMP_NUM_THREADS, with the affinity that the calling thread had in the current tick of the system's coarse clock (1
 * to 10 ms). Exported, unlike all else: by this name threadpoolctl knows the shared library. */
__attribute__((visibility("default"))) int trpo_get_threads(void);

/* Whole cores, at most TRPO_MAX_THREADS, that the CPU limits of this process's control groups (v1 or v2) grant; 0: no
 * limit known. membership: a file like /proc/self/cgroup; root: where the groups are mounted, /sys/fs/cgroup. */
int trpo_cgroup_cores(const char *membership, const char *root);

/* Distinct cores among `count` logical processors: those that share one have the same first sibling in root/cpuN/topology.
 * A processor of which nothing is said there is a core of its own. root: /sys/devices/system/cpu. */
int trpo_physical_cores(const char *root, const int *processors, int count);

/* Cores that affinity and control groups grant the calling thread, looked at anew, 1..TRPO_MAX_THREADS. Two logical
 * processors of one core count once where the system says so (Linux; others, and many virtual machines, do not). */
int trpo_usable_cores(void);

/* count: 1..TRPO_MAX_THREADS (checked by the caller), or 0: as before anything was set. Holds from the next section on. */
void trpo_set_threads(int count);
int trpo_chosen_threads(void); /* what it was called with last; 0 where it was not */

/* What OMP_NUM_THREADS allows on the first level of its list, looked at once; TRPO_MAX_THREADS where it is not set, or is no
 * number from 1 to that. */
int trpo_openmp_limit(void);

/* Run task(context, i, thread) once for every i < tasks. threads: what the caller has room for; no more than that, and no
 * more than trpo_get_threads(), take part. thread is 0..threads-1 and no two running tasks share one. Returns when all are
 * done. Runs in the caller alone when another section is under way, so two Python threads may solve two problems at once.
 * Memory written by the tasks is visible to the caller.
 *
 * Tasks run with the caller's rounding and its treatment of denormal numbers, and on processors that the caller's affinity
 * allowed in the current tick of the coarse clock. Other threads than the caller block every signal that can be blocked
 * without harm: all but those that a fault of the thread itself raises. */
void trpo_parallel(int tasks, int threads, void (*task)(void *context, int i, int thread), void *context);

/* The calling thread's rounding and its treatment of denormal numbers, as the CPU's control register has them; other bits
 * of what is set are nobody's. */
uint64_t trpo_floating_mode(void);
void trpo_set_floating_mode(uint64_t mode);

/* A claim (0: free) on work memory that one thread at a time may use: 1 if it was free and is now the caller's. One that
 * was held while this process was forked is free in the child, where its holder does not exist. */
int trpo_claim(int *claim);
static inline void trpo_release(int *claim) { __atomic_store_n(claim, 0, __ATOMIC_RELEASE); }

#ifdef __cplusplus
}
#endif

#endif
