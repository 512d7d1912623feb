/* A small fork-safe pool of POSIX threads, made at first use and parked when idle. */
#ifndef TRPO_THREADS_H
#define TRPO_THREADS_H

enum { TRPO_MAX_THREADS = 256 };

/* Threads that a parallel section may use, the caller's included; at first the cores this process may run on, at most
 * OMP_NUM_THREADS. Exported, unlike all else: by this name threadpoolctl knows the shared library. */
__attribute__((visibility("default"))) int trpo_get_threads(void);

/* Whole cores that the CPU limits of this process's control groups (v1 or v2) grant; 0: no limit known. membership: a
 * file like /proc/self/cgroup; root: where the groups are mounted, /sys/fs/cgroup. */
int trpo_cgroup_cores(const char *membership, const char *root);

/* Cores that affinity and control groups grant this process, 1..TRPO_MAX_THREADS. */
int trpo_usable_cores(void);

/* count: 1..TRPO_MAX_THREADS (checked by the caller). Affects sections that start later. */
void trpo_set_threads(int count);

/* Run task(context, i, thread) once for every i < tasks, on at most `threads` threads; thread is 0..threads-1 and no two
 * running tasks share one. Returns when all are done. Runs in the caller alone when another section is under way, so
 * two Python threads may solve two problems at once. Memory written by the tasks is visible to the caller. */
void trpo_parallel(int tasks, int threads, void (*task)(void *context, int i, int thread), void *context);

/* A claim (0: free) on work memory that one thread at a time may use: 1 if it was free and is now the caller's. */
static inline int trpo_claim(int *claim) { return !__atomic_exchange_n(claim, 1, __ATOMIC_ACQUIRE); }
static inline void trpo_release(int *claim) { __atomic_store_n(claim, 0, __ATOMIC_RELEASE); }

#endif
