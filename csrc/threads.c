#define _GNU_SOURCE
#include "trpo/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

/* One section at a time: `section` is held by the thread that runs it. Workers wait for `generation` to move. */
static struct {
    pthread_mutex_t section;
    pthread_mutex_t lock; /* guards generation, wanted, and the sleep of workers */
    pthread_cond_t wake, finished;
    int workers; /* threads that exist besides callers */
    unsigned generation;
    int wanted; /* workers that may join the section under way */
    int joined, active;
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
    pool.workers = pool.wanted = pool.joined = pool.active = 0;
}

static void register_at_fork(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

/* Whole cores that the cgroup (v2) grants, 0 if unlimited or unknown. */
static int cgroup_cores(void) {
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    long quota = 0, period = 0;
    if (!file) return 0;
    if (fscanf(file, "%ld %ld", &quota, &period) != 2) quota = 0; /* "max": no number to read */
    fclose(file);
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

static int usable_cores(void) {
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
#endif
    const int granted = cgroup_cores();
    if (granted > 0 && granted < cores) cores = granted;
    return cores < 1 ? 1 : (cores > TRPO_MAX_THREADS ? TRPO_MAX_THREADS : cores);
}

int trpo_get_threads(void) {
    int count = atomic_load(&thread_count);
    if (count == 0) {
        count = usable_cores();
        atomic_store(&thread_count, count);
    }
    return count;
}

void trpo_set_threads(int count) { atomic_store(&thread_count, count); }

static void run_tasks(int thread) {
    for (int i; (i = atomic_fetch_add(&pool.next, 1)) < pool.tasks;) pool.task(pool.context, i, thread);
}

static void *worker(void *unused) {
    (void)unused;
    unsigned seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.generation == seen || pool.wanted == 0) {
            seen = pool.generation;
            pthread_cond_wait(&pool.wake, &pool.lock);
        }
        seen = pool.generation;
        pool.wanted--;
        pool.active++;
        const int thread = ++pool.joined;
        pthread_mutex_unlock(&pool.lock);
        run_tasks(thread);
        pthread_mutex_lock(&pool.lock);
        if (--pool.active == 0) pthread_cond_signal(&pool.finished);
    }
    return NULL;
}

/* With pool.lock held. Fewer workers than asked for is no error: the section still completes. */
static void grow(int workers) {
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
    grow(threads - 1);
    pool.task = task;
    pool.context = context;
    pool.tasks = tasks;
    atomic_store(&pool.next, 0);
    pool.joined = 0;
    pool.wanted = threads - 1;
    pool.generation++;
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    run_tasks(0);
    pthread_mutex_lock(&pool.lock);
    pool.wanted = 0; /* late risers find nothing to join */
    while (pool.active > 0) pthread_cond_wait(&pool.finished, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.section);
}
