#define _GNU_SOURCE
#include "trpo/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

/* How long a thread looks for work, or for the end of it, before it sleeps. Waking a sleeper takes tens of microseconds
 * under virtualization, and an update is hundreds of sections with less than that between them. */
enum { SPIN_NANOSECONDS = 50000 };

/* One section at a time: `section` is held by the thread that runs it. Workers wait for `generation` to move. What is
 * atomic is written under `lock`, and read without it by those who spin. */
static struct {
    pthread_mutex_t section;
    pthread_mutex_t lock; /* guards all but tasks' work */
    pthread_cond_t wake, finished;
    int workers; /* threads that exist besides callers */
    int cores;   /* that this process may use; 0: not yet determined */
    int spins;   /* whether every thread of the last section has a core to itself */
    int core;    /* that the last section was begun on */
    atomic_uint generation;
    int wanted; /* workers that may join the section under way */
    int joined;
    atomic_uint active;
    void (*task)(void *, int, int);
    void *context;
    int tasks;
    atomic_int next;
} pool = {.section = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .finished = PTHREAD_COND_INITIALIZER};

static atomic_int thread_count; /* 0: not yet determined */
static pthread_once_t at_fork_once = PTHREAD_ONCE_INIT;

/* Only the forking thread lives on in a child: forget the workers, and any section that another thread was running. */
static void after_fork_in_child(void) {
    pthread_mutex_init(&pool.section, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.finished, NULL);
    pool.workers = pool.cores = pool.wanted = pool.joined = 0;
    atomic_store(&pool.active, 0);
}

static void register_at_fork(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

/* The integers that a file begins with, at most two; returns how many. */
static int read_integers(const char *path, long *first, long *second) {
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    const int count = fscanf(file, "%ld %ld", first, second);
    fclose(file);
    return count;
}

/* Whole cores that one control group grants, 0 where it sets no limit ("max" in v2, -1 in v1). */
static int group_cores(const char *folder, int v2) {
    char path[4096];
    long quota = 0, period = 0, unused;
    if (v2) {
        snprintf(path, sizeof path, "%s/cpu.max", folder);
        if (read_integers(path, &quota, &period) != 2) return 0;
    } else {
        snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
        if (read_integers(path, &quota, &unused) < 1) return 0;
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
        if (read_integers(path, &period, &unused) < 1) return 0;
    }
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

/* Whether "cpu" is among comma-separated controllers, whose order differs between systems; spoils them. */
static int names_cpu(char *controllers) {
    char *rest = NULL;
    for (char *name = strtok_r(controllers, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        if (strcmp(name, "cpu") == 0) return 1;
    return 0;
}

int trpo_cgroup_cores(const char *membership, const char *root) {
    char line[2048], folder[3072];
    int least = 0;
    FILE *file = fopen(membership, "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) { /* id:controllers:/path, no controllers in v2 */
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        controllers++;
        const int v2 = *controllers == 0;
        if (!v2 && !names_cpu(controllers)) continue;
        /* Every group above has a say. Inside a container the path may be the host's, and only the root exists. */
        for (char *end = path + strlen(path);; *end = 0) {
            snprintf(folder, sizeof folder, "%s%s%s", root, v2 ? "" : "/cpu", path);
            const int cores = group_cores(folder, v2);
            if (cores > 0 && (least == 0 || cores < least)) least = cores;
            if (*path == 0) break;
            end = strrchr(path, '/');
            if (!end) break;
        }
    }
    fclose(file);
    return least;
}

int trpo_usable_cores(void) {
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
#endif
    const int granted = trpo_cgroup_cores("/proc/self/cgroup", "/sys/fs/cgroup");
    if (granted > 0 && granted < cores) cores = granted;
    return cores < 1 ? 1 : (cores > TRPO_MAX_THREADS ? TRPO_MAX_THREADS : cores);
}

/* What OMP_NUM_THREADS allows on the first level of its list; 0 where it is not set or is no number. */
static int openmp_limit(void) {
    const char *text = getenv("OMP_NUM_THREADS");
    const long limit = text ? strtol(text, NULL, 10) : 0;
    return limit < 1 ? 0 : (limit > TRPO_MAX_THREADS ? TRPO_MAX_THREADS : (int)limit);
}

int trpo_get_threads(void) {
    int count = atomic_load(&thread_count);
    if (count == 0) {
        const int limit = openmp_limit();
        count = trpo_usable_cores();
        if (limit > 0 && limit < count) count = limit;
        atomic_store(&thread_count, count);
    }
    return count;
}

void trpo_set_threads(int count) { atomic_store(&thread_count, count); }

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static long nanoseconds_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start->tv_sec) * 1000000000L + (now.tv_nsec - start->tv_nsec);
}

/* Returns once (*value == mark) is `wanted`, or after a while; without pool.lock. */
static void spin_until(atomic_uint *value, unsigned mark, int wanted) {
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        for (int i = 0; i < 32; i++) {
            if ((atomic_load(value) == mark) == wanted) return;
            pause_briefly();
        }
    while (nanoseconds_since(&start) < SPIN_NANOSECONDS);
}

/* Move the calling thread off a core that is taken. Schedulers may leave a woken worker on its caller's core for seconds,
 * however idle the others are: a section then takes as long as on one thread. */
static void leave_core(int taken) {
#ifdef __linux__
    cpu_set_t allowed, others;
    if (taken < 0 || sched_getcpu() != taken || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    others = allowed;
    CPU_CLR((size_t)taken, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed); /* where it is now it stays by itself */
#else
    (void)taken;
#endif
}

static int current_core(void) {
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;
#endif
}

static void run_tasks(int thread) {
    for (int i; (i = atomic_fetch_add(&pool.next, 1)) < pool.tasks;) pool.task(pool.context, i, thread);
}

static void *worker(void *unused) {
    (void)unused;
    unsigned seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        if (pool.spins) {
            pthread_mutex_unlock(&pool.lock);
            spin_until(&pool.generation, seen, 0);
            pthread_mutex_lock(&pool.lock);
        }
        while (pool.generation == seen || pool.wanted == 0) {
            seen = pool.generation;
            pthread_cond_wait(&pool.wake, &pool.lock);
        }
        seen = pool.generation;
        pool.wanted--;
        pool.active++;
        const int thread = ++pool.joined;
        const int taken = pool.spins ? pool.core : -1;
        pthread_mutex_unlock(&pool.lock);
        leave_core(taken);
        run_tasks(thread);
        pthread_mutex_lock(&pool.lock);
        if (--pool.active == 0) pthread_cond_signal(&pool.finished);
    }
    return NULL;
}

/* With pool.lock held. Fewer workers than asked for is no error: the section still completes. */
static void grow(int workers) {
    if (pool.cores == 0) pool.cores = trpo_usable_cores();
    while (pool.workers < workers) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, NULL) != 0) return;
        pthread_detach(thread);
        pool.workers++;
    }
}

void trpo_parallel(int tasks, int threads, void (*task)(void *, int, int), void *context) {
    if (threads > tasks) threads = tasks;
    if (threads <= 1 || pthread_mutex_trylock(&pool.section) != 0) {
        for (int i = 0; i < tasks; i++) task(context, i, 0);
        return;
    }
    pthread_once(&at_fork_once, register_at_fork);
    pthread_mutex_lock(&pool.lock);
    if (pool.workers < threads - 1) grow(threads - 1);
    pool.task = task;
    pool.context = context;
    pool.tasks = tasks;
    atomic_store(&pool.next, 0);
    pool.joined = 0;
    pool.wanted = threads - 1;
    pool.spins = threads <= pool.cores;
    pool.core = current_core();
    pool.generation++;
    for (int i = 1; i < threads; i++) pthread_cond_signal(&pool.wake); /* there may be more workers than are wanted */
    pthread_mutex_unlock(&pool.lock);
    run_tasks(0);
    pthread_mutex_lock(&pool.lock);
    pool.wanted = 0; /* late risers find nothing to join */
    if (pool.spins) {
        pthread_mutex_unlock(&pool.lock);
        spin_until(&pool.active, 0, 1);
        pthread_mutex_lock(&pool.lock);
    }
    while (pool.active > 0) pthread_cond_wait(&pool.finished, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.section);
}
