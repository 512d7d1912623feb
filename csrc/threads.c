#define _GNU_SOURCE
#include "trpo/threads.h"

#include <ctype.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
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

/* Of a worker, whatever the system's default is, which may be 128 KiB or, for 255 of them, too much: kernels keep tiles on
 * it, up to 130 KiB a function. */
enum { STACK_BYTES = 1 << 20 };

#ifdef __linux__
typedef cpu_set_t processor_set; /* all zero: not known */
#else
typedef char processor_set;
#endif

/* What the affinity of a thread and the control groups grant. */
typedef struct {
    processor_set allowed;
    int processors, cores; /* 1..TRPO_MAX_THREADS, or 0: not yet counted */
} grant;

/* The last one that was counted, for any thread. */
static struct {
    pthread_mutex_t lock;
    grant grant;
} counted = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The calling thread's own, and when its affinity was last looked at. */
static _Thread_local struct {
    int64_t tick;
    grant grant;
} mine;

/* Rounding, and whether denormal numbers are taken and made as zero: what results depend on besides the operands. Which
 * exceptions trap is left as it is: a worker has nobody to tell. */
#if defined(__x86_64__)
typedef unsigned floating_mode;
enum { FLOATING_MODE = 0xe040 }; /* MXCSR: flush to zero, rounding; denormals are zero */
static unsigned read_control(void) { return __builtin_ia32_stmxcsr(); }
static void write_control(unsigned control) { __builtin_ia32_ldmxcsr(control); }
#else
typedef uint64_t floating_mode;
#define FLOATING_MODE                                                                                                  \
    UINT64_C(0x03c80003) /* FPCR: default NaN, flush to zero, rounding; half precision's; FEAT_AFP's */
static uint64_t read_control(void) {
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return control;
}
static void write_control(uint64_t control) { __asm__ volatile("msr fpcr, %0" : : "r"(control)); }
#endif

uint64_t trpo_floating_mode(void) { return read_control() & FLOATING_MODE; }

void trpo_set_floating_mode(uint64_t mode) {
    const floating_mode control = read_control();
    if ((control & FLOATING_MODE) != mode)
        write_control((control & ~(floating_mode)FLOATING_MODE) | ((floating_mode)mode & FLOATING_MODE));
}

/* One section at a time: `section` is held by the thread that runs it. Workers wait for `generation` to move. What is
 * atomic is written under `lock`, and read without it by those who spin. */
static struct {
    pthread_mutex_t section;
    pthread_mutex_t lock; /* guards all but tasks' work */
    pthread_cond_t wake, finished;
    int workers;           /* threads that exist besides callers */
    int spins;             /* whether every thread of the last section has a processor to itself */
    int core;              /* that the last section was begun on */
    processor_set allowed; /* the affinity of those who called */
    unsigned placement;    /* moves whenever that changes */
    uint64_t mode;         /* of the last section's caller */
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

static atomic_int thread_count;       /* 0: as many as there are cores */
static atomic_int process_number = 1; /* of processes that forked one another: what a claim holds */
static pthread_once_t at_fork_once = PTHREAD_ONCE_INIT;

/* Only the forking thread lives on in a child: forget the workers, and any section or claim of another thread. */
static void after_fork_in_child(void) {
    atomic_fetch_add(&process_number, 1);
    pthread_mutex_init(&counted.lock, NULL);
    counted.grant.processors = mine.grant.processors = 0; /* it may be in other control groups */
    pthread_mutex_init(&pool.section, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.finished, NULL);
    pool.workers = pool.wanted = pool.joined = 0;
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
    if (quota <= 0 || period <= 0) return 0;
    const long cores = (quota - 1) / period + 1;
    return cores < TRPO_MAX_THREADS ? (int)cores : TRPO_MAX_THREADS;
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

/* The first of the logical processors that share a core with this one: itself where the tree does not say. */
static int first_sibling(const char *root, int processor) {
    char path[512];
    long first, unused;
    snprintf(path, sizeof path, "%s/cpu%d/topology/thread_siblings_list", root, processor);
    return read_integers(path, &first, &unused) >= 1 ? (int)first : processor;
}

int trpo_physical_cores(const char *root, const int *processors, int count) {
    int cores = 0;
    int *first = malloc((size_t)count * sizeof *first);
    if (!first) return count;
    for (int i = 0; i < count; i++) {
        const int sibling = first_sibling(root, processors[i]);
        int j = 0;
        while (j < cores && first[j] != sibling) j++;
        if (j == cores) first[cores++] = sibling;
    }
    free(first);
    return cores;
}

static int in_range(int count) { return count < 1 ? 1 : (count > TRPO_MAX_THREADS ? TRPO_MAX_THREADS : count); }

static void count_processors(grant *g) {
    int processors = (int)sysconf(_SC_NPROCESSORS_ONLN), cores = processors;
#ifdef __linux__
    int allowed[CPU_SETSIZE], count = 0;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET((size_t)i, &g->allowed)) allowed[count++] = i;
    if (count > 0) processors = count, cores = trpo_physical_cores("/sys/devices/system/cpu", allowed, count);
#endif
    const int granted = trpo_cgroup_cores("/proc/self/cgroup", "/sys/fs/cgroup");
    if (granted > 0 && granted < processors) processors = granted;
    if (granted > 0 && granted < cores) cores = granted;
    g->processors = in_range(processors), g->cores = in_range(cores);
}

/* The calling thread's grant. Asking for an affinity takes as long as a small section, so that is done once in a tick of the
 * coarse clock, which takes nanoseconds to read; or now. */
static const grant *look(int now) {
    processor_set allowed;
    memset(&allowed, 0, sizeof allowed);
#ifdef __linux__
    struct timespec clock;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &clock);
    const int64_t tick = (int64_t)clock.tv_sec * 1000000000 + clock.tv_nsec;
    if (!now && mine.grant.processors && tick == mine.tick) return &mine.grant;
    mine.tick = tick;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) CPU_ZERO(&allowed); /* more processors than a set holds */
#endif
    if (!now && mine.grant.processors && memcmp(&allowed, &mine.grant.allowed, sizeof allowed) == 0) return &mine.grant;
    pthread_mutex_lock(&counted.lock);
    if (now || !counted.grant.processors || memcmp(&allowed, &counted.grant.allowed, sizeof allowed) != 0) {
        counted.grant.allowed = allowed;
        count_processors(&counted.grant);
    }
    mine.grant = counted.grant;
    pthread_mutex_unlock(&counted.lock);
    return &mine.grant;
}

int trpo_usable_cores(void) { return look(1)->cores; }

int trpo_openmp_limit(void) {
    static atomic_int known;
    int limit = atomic_load(&known);
    if (limit == 0) {
        const char *text = getenv("OMP_NUM_THREADS");
        char *end = NULL;
        const long number = text ? strtol(text, &end, 10) : 0;
        while (end && isspace((unsigned char)*end)) end++;
        const int is_limit = number >= 1 && number <= TRPO_MAX_THREADS && (*end == 0 || *end == ',');
        limit = is_limit ? (int)number : TRPO_MAX_THREADS;
        atomic_store(&known, limit);
    }
    return limit;
}

int trpo_get_threads(void) {
    const int count = atomic_load(&thread_count);
    if (count > 0) return count;
    const int cores = look(0)->cores, limit = trpo_openmp_limit();
    return cores < limit ? cores : limit;
}

int trpo_chosen_threads(void) { return atomic_load(&thread_count); }

void trpo_set_threads(int count) { atomic_store(&thread_count, count); }

int trpo_claim(int *claim) {
    pthread_once(&at_fork_once, register_at_fork);
    const int number = atomic_load(&process_number);
    return __atomic_exchange_n(claim, number, __ATOMIC_ACQUIRE) != number;
}

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

static void run_on(const processor_set *allowed) {
#ifdef __linux__
    sched_setaffinity(0, sizeof *allowed, allowed);
#else
    (void)allowed;
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
    unsigned seen = 0, placement = 0;
    processor_set allowed;
#ifdef __linux__
    pthread_setname_np(pthread_self(), "trpo-fast pool"); /* what top and debuggers show */
#endif
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
        const int moves = placement != pool.placement;
        if (moves) allowed = pool.allowed, placement = pool.placement;
        const uint64_t mode = pool.mode;
        pthread_mutex_unlock(&pool.lock);
        trpo_set_floating_mode(mode);
        if (moves) run_on(&allowed);
        leave_core(taken);
        run_tasks(thread);
        pthread_mutex_lock(&pool.lock);
        if (--pool.active == 0) pthread_cond_signal(&pool.finished);
    }
    return NULL;
}

/* With pool.lock held. Fewer workers than asked for is no error: the section still completes. */
static void grow(int workers) {
    static const int of_the_thread[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof of_the_thread / sizeof of_the_thread[0]; i++) sigdelset(&blocked, of_the_thread[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, &before); /* a thread is born with what its maker blocks */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    while (pool.workers < workers) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, worker, NULL) != 0) break;
        pthread_detach(thread);
        pool.workers++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void trpo_parallel(int tasks, int threads, void (*task)(void *, int, int), void *context) {
    if (threads > tasks) threads = tasks;
    const int limit = threads > 1 ? trpo_get_threads() : 1;
    if (threads > limit) threads = limit;
    if (threads <= 1 || pthread_mutex_trylock(&pool.section) != 0) {
        for (int i = 0; i < tasks; i++) task(context, i, 0);
        return;
    }
    pthread_once(&at_fork_once, register_at_fork);
    const grant *granted = look(0);
    pthread_mutex_lock(&pool.lock);
    if (memcmp(&pool.allowed, &granted->allowed, sizeof pool.allowed) != 0) {
        pool.allowed = granted->allowed;
        pool.placement++;
    }
    if (pool.workers < threads - 1) grow(threads - 1);
    pool.task = task;
    pool.context = context;
    pool.tasks = tasks;
    atomic_store(&pool.next, 0);
    pool.joined = 0;
    pool.wanted = threads - 1;
    pool.spins = threads <= granted->processors;
    pool.core = current_core();
    pool.mode = trpo_floating_mode();
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
