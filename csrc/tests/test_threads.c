/* The pool: every task runs once, results do not depend on the number of threads, and a forked child can go on. */
#define _GNU_SOURCE /* mkdtemp */
#include "policy_fixture.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TASKS = 1000 };
static atomic_int runs[TASKS];
static atomic_int running[TRPO_MAX_THREADS];

static void count_run(void *context, int i, int thread) {
    (void)context;
    CHECK(atomic_fetch_add(&running[thread], 1) == 0, "two tasks run as thread %d", thread);
    atomic_fetch_add(&runs[i], 1);
    atomic_fetch_sub(&running[thread], 1);
}

static void every_task_runs_once(int threads) {
    for (int i = 0; i < TASKS; i++) atomic_store(&runs[i], 0);
    trpo_parallel(TASKS, threads, count_run, NULL);
    for (int i = 0; i < TASKS; i++) CHECK(atomic_load(&runs[i]) == 1, "task %d ran %d times", i, atomic_load(&runs[i]));
}

static void nested(void *context, int i, int thread) {
    (void)i, (void)thread;
    atomic_fetch_add((atomic_int *)context, 1);
}

static void outer(void *context, int i, int thread) {
    (void)i, (void)thread;
    trpo_parallel(3, 4, nested, context); /* runs in this thread alone */
}

#ifdef __GLIBC__
static void has_a_stack(void *context, int thread) {
    pthread_attr_t attributes;
    size_t bytes = 0;
    (void)context;
    if (thread == 0) return; /* the caller's own is the caller's */
    CHECK(pthread_getattr_np(pthread_self(), &attributes) == 0, "no attributes of thread %d", thread);
    pthread_attr_getstacksize(&attributes, &bytes);
    pthread_attr_destroy(&attributes);
    CHECK(bytes == 1 << 20, "thread %d has a stack of %zu bytes", thread, bytes);
}
#endif

/* As many tasks as threads, each of which waits for all others to begin: every thread has exactly one. */
typedef struct {
    int threads;
    atomic_int begun;
    void (*check)(void *context, int thread);
    void *context;
} meeting;

static void meet(void *context, int i, int thread) {
    meeting *m = context;
    (void)i;
    atomic_fetch_add(&m->begun, 1);
    while (atomic_load(&m->begun) < m->threads) sched_yield();
    m->check(m->context, thread);
}

static void on_every_thread(int threads, void (*check)(void *, int), void *context) {
    meeting m = {.threads = threads, .check = check, .context = context};
    trpo_set_threads(threads);
    trpo_parallel(threads, threads, meet, &m);
}

static void note_thread(void *context, int i, int thread) {
    (void)i;
    for (int most = atomic_load((atomic_int *)context); thread > most;)
        if (atomic_compare_exchange_weak((atomic_int *)context, &most, thread)) break;
}

static void lower_the_limit(void *context, int i, int thread) {
    (void)i, (void)thread;
    trpo_set_threads(*(const int *)context);
}

static void a_limit_holds_from_the_next_section_on_whatever_there_is_room_for(void) {
    for (int limit = 1; limit <= 3; limit++) {
        atomic_int most = 0;
        trpo_set_threads(8);
        trpo_parallel(4, 8, lower_the_limit, &limit);
        for (int repeat = 0; repeat < 20; repeat++) trpo_parallel(TASKS, 8, note_thread, &most);
        CHECK(atomic_load(&most) < limit, "thread %d took part, where %d were allowed", atomic_load(&most), limit);
    }
    trpo_set_threads(TRPO_MAX_THREADS);
}

static void blocks_signals(void *context, int thread) {
    (void)context;
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    static const int outer[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGALRM, SIGCHLD}, own[] = {SIGSEGV, SIGFPE, SIGBUS};
    for (int i = 0; thread > 0 && i < 6; i++) CHECK(sigismember(&blocked, outer[i]), "signal %d", outer[i]);
    for (int i = 0; i < 3; i++) CHECK(!sigismember(&blocked, own[i]), "a fault would end the process unreported");
}

/* Any other thread that did not block it would take it, and the process would end. */
static void a_signal_that_the_caller_blocks_stays_pending(void) {
    sigset_t term, before, pending;
    sigemptyset(&term), sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    CHECK(!sigismember(&before, SIGTERM), "the pool changed its caller's mask");
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    on_every_thread(4, blocks_signals, NULL);
    kill(getpid(), SIGTERM);
    on_every_thread(4, blocks_signals, NULL);
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGTERM), "somebody took it");
    int taken;
    sigwait(&term, &taken);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

typedef struct {
    double tiny; /* what half of the least normal number is */
    double third;
} arithmetic;

static arithmetic calculate(void) {
    volatile double least = 2.2250738585072014e-308, one = 1, half = 0.5, three = 3;
    return (arithmetic){least * half, one / three};
}

static void calculates_as_its_caller(void *context, int thread) {
    const arithmetic *wanted = context, found = calculate();
    CHECK(memcmp(&found.tiny, &wanted->tiny, sizeof found.tiny) == 0, "thread %d: %g", thread, found.tiny);
    CHECK(found.third == wanted->third, "thread %d: %.17g instead of %.17g", thread, found.third, wanted->third);
}

static void flush_denormals(int flush) {
#if defined(__x86_64__)
    const unsigned bits = 0x8040, control = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(flush ? control | bits : control & ~bits);
#else
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    control = flush ? control | (1 << 24) : control & ~(UINT64_C(1) << 24);
    __asm__ volatile("msr fpcr, %0" : : "r"(control));
#endif
}

static void threads_calculate_as_their_caller_does(void) {
    for (int repeat = 0; repeat < 3; repeat++)
        for (int flush = 0; flush < 2; flush++) {
            flush_denormals(flush);
            arithmetic wanted = calculate();
            CHECK((wanted.tiny == 0) == flush || under_memcheck(), "%g", wanted.tiny);
            on_every_thread(4, calculates_as_its_caller, &wanted);
            fesetround(FE_UPWARD);
            wanted = calculate();
            on_every_thread(4, calculates_as_its_caller, &wanted);
            fesetround(FE_TONEAREST);
        }
    flush_denormals(0);
}

#ifdef __linux__
static cpu_set_t first_of(const cpu_set_t *all) {
    cpu_set_t one;
    size_t first = 0;
    while (!CPU_ISSET(first, all)) first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    return one;
}

static void runs_where_its_caller_may(void *context, int thread) {
    cpu_set_t allowed;
    CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0, "sched_getaffinity");
    CHECK(CPU_EQUAL(&allowed, (cpu_set_t *)context), "thread %d has another affinity than its caller", thread);
}

static void threads_follow_the_affinity_of_their_caller(void) {
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0, "sched_getaffinity");
    one = first_of(&all);
    cpu_set_t *const masks[] = {&one, &all, &one, &all};
    for (int i = 0; i < 4; i++) {
        CHECK(sched_setaffinity(0, sizeof all, masks[i]) == 0, "sched_setaffinity");
        CHECK(trpo_usable_cores() <= CPU_COUNT(masks[i]), "%d cores", trpo_usable_cores()); /* and looks at once */
        on_every_thread(4, runs_where_its_caller_may, masks[i]);
    }
    /* Without asking, within a tick of the clock. */
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
    usleep(30000);
    on_every_thread(4, runs_where_its_caller_may, &one);
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0, "sched_setaffinity");
    trpo_usable_cores();
}

/* First of all: nothing has set a number of threads yet. */
static void the_first_number_of_threads_follows_the_affinity(void) {
    cpu_set_t all, one;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0, "sched_getaffinity");
    const int cores = trpo_usable_cores();
    CHECK(trpo_get_threads() == cores && cores <= CPU_COUNT(&all), "%d of %d", trpo_get_threads(), cores);
    one = first_of(&all);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
    CHECK(trpo_usable_cores() == 1 && trpo_get_threads() == 1, "%d of 1", trpo_get_threads());
    CHECK(sched_setaffinity(0, sizeof all, &all) == 0, "sched_setaffinity");
    CHECK(trpo_usable_cores() == cores && trpo_get_threads() == cores, "%d of %d", trpo_get_threads(), cores);
}
#endif

/* nor does it matter how many tiles are cached */
static void threads_do_not_change_a_bit(const trpo_kernels *k) {
    const size_t widths[] = {17, 64, 64, 6};
    void *first = NULL;
    const int counts[] = {1, 2, 3, 8};
    for (int c = 0; c < 4; c++) {
        fixture f;
        fixture_make(&f, k, 3, widths, TRPO_TANH, TRPO_GAUSSIAN, 0, 1000, counts[c]);
        f.batch.cache.tiles -= (size_t)c * 3;
        void *v = random_values(k, f.parameters, 1, 31), *out = malloc(f.parameters * k->item_size);
        k->policy_fisher(&f.batch, v, out);
        if (first) CHECK(memcmp(first, out, f.parameters * k->item_size) == 0, "%s: %d threads", k->isa, counts[c]);
        if (first)
            free(out);
        else
            first = out;
        free(v);
        fixture_free(&f);
    }
    free(first);
}

static void write_file(const char *folder, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

/* Limits of a tree of control groups, made up in a folder of its own. */
static void control_groups_limit_the_cores(void) {
    char root[] = P_tmpdir "/trpo_cgroup_XXXXXX", inner[64], v1[64], member[64];
    CHECK(mkdtemp(root), "mkdtemp");
    snprintf(inner, sizeof inner, "%s/outer", root), mkdir(inner, 0700);
    snprintf(v1, sizeof v1, "%s/cpu", root), mkdir(v1, 0700);
    snprintf(member, sizeof member, "%s/member", root);
    CHECK(trpo_cgroup_cores(member, root) == 0, "no such file");
    write_file(root, "member", "0::/outer/gone\n");
    CHECK(trpo_cgroup_cores(member, root) == 0, "no limits");
    write_file(root, "cpu.max", "max 100000\n");
    CHECK(trpo_cgroup_cores(member, root) == 0, "max");
    write_file(root, "cpu.max", "650000 100000\n");
    CHECK(trpo_cgroup_cores(member, root) == 7, "the root's, rounded up");
    write_file(root, "cpu.max", "9223372036854775807 2\n");
    CHECK(trpo_cgroup_cores(member, root) == TRPO_MAX_THREADS, "more than fits");
    write_file(root, "cpu.max", "650000 100000\n");
    write_file(inner, "cpu.max", "150000 100000\n");
    CHECK(trpo_cgroup_cores(member, root) == 2, "the least of those above");
    write_file(root, "member", "garbage\n9:memory:/outer\n4:cpu,cpuacct:/host/path\n");
    CHECK(trpo_cgroup_cores(member, root) == 0, "v1 without limits");
    write_file(v1, "cpu.cfs_quota_us", "-1\n"), write_file(v1, "cpu.cfs_period_us", "100000\n");
    CHECK(trpo_cgroup_cores(member, root) == 0, "v1 unlimited");
    write_file(v1, "cpu.cfs_quota_us", "250000\n");
    CHECK(trpo_cgroup_cores(member, root) == 3, "v1");
    write_file(root, "member", "4:cpuset:/\n5:cpuacct,cpu:/\n");
    CHECK(trpo_cgroup_cores(member, root) == 3, "v1 with its controllers in another order");
    write_file(root, "member", "4:cpuset,cpuacct:/\n");
    CHECK(trpo_cgroup_cores(member, root) == 0, "controllers that only begin as cpu does");
    write_file(root, "member", "4:cpu:/\n");
    CHECK(trpo_cgroup_cores(member, root) == 3, "v1 at the root");
    char command[80];
    snprintf(command, sizeof command, "rm -r %s", root);
    CHECK(system(command) == 0, "%s", command);
}

/* Siblings of each processor, in a folder of its own. */
static void processors_of_one_core_count_once(void) {
    char root[] = P_tmpdir "/trpo_cores_XXXXXX", folder[64];
    CHECK(mkdtemp(root), "mkdtemp");
    static const char *const siblings[] = {"0,4\n", "1-2\n", "1-2\n", "3\n", "0,4\n"};
    for (int i = 0; i < 5; i++) {
        snprintf(folder, sizeof folder, "%s/cpu%d", root, i), mkdir(folder, 0700);
        snprintf(folder, sizeof folder, "%s/cpu%d/topology", root, i), mkdir(folder, 0700);
        write_file(folder, "thread_siblings_list", siblings[i]);
    }
    const int all[] = {0, 1, 2, 3, 4}, few[] = {2, 4, 0}, second[] = {4}, unknown[] = {4, 5, 6};
    CHECK(trpo_physical_cores(root, all, 5) == 3, "%d", trpo_physical_cores(root, all, 5));
    CHECK(trpo_physical_cores(root, few, 3) == 2, "a core counts once whichever of its processors are allowed");
    CHECK(trpo_physical_cores(root, second, 1) == 1, "a sibling that is not allowed does not count");
    CHECK(trpo_physical_cores(root, unknown, 3) == 3, "a processor without a word is a core of its own");
    CHECK(trpo_physical_cores("/nowhere", all, 5) == 5, "nothing known");
    char command[80];
    snprintf(command, sizeof command, "rm -r %s", root);
    CHECK(system(command) == 0, "%s", command);
}

static void the_peak_counts_every_thread(const trpo_kernels *k) {
    const double one = k->multiply_adds(10, 1);
    CHECK(one > 0 && k->multiply_adds(20, 3) == 6 * one, "%s: %g", k->isa, one);
}

/* docs/backend.md says how many threads are of use. */
static void batches_have_as_many_blocks_as_is_documented(void) {
    CHECK(trpo_block_count(2048, 5708) == 16 && trpo_block_count(2048, 65537) == 8, "2,048 rows");
    CHECK(trpo_block_count(6048, 65536) == 16 && trpo_block_count(6049, 65536) == 32, "from 6,049 rows on");
    CHECK(trpo_block_count(1000000, 65537) == 16 && trpo_block_count(97, 65537) == 2, "a million rows, and two tiles");
}

static void a_claim_is_one_threads(void) {
    int claim = 0;
    CHECK(trpo_claim(&claim) && !trpo_claim(&claim), "two have it");
    trpo_release(&claim);
    CHECK(trpo_claim(&claim), "released, and not free");
}

#if !defined(__SANITIZE_THREAD__) /* it does not follow a fork with threads */
static void *hold(void *claim) {
    CHECK(trpo_claim(claim), "not free");
    return NULL;
}

/* In a child that was forked while another thread of its parent held it. */
static void the_claim_of_a_thread_that_is_gone_is_free(int *claim) {
    CHECK(trpo_claim(claim), "its holder does not exist here");
    CHECK(!trpo_claim(claim), "two have it");
    trpo_release(claim);
    CHECK(trpo_claim(claim), "released, and not free");
}
#endif

int main(void) {
#ifdef __linux__
    unsetenv("OMP_NUM_THREADS"); /* nobody has looked at it yet */
    the_first_number_of_threads_follows_the_affinity();
#endif
    control_groups_limit_the_cores();
    processors_of_one_core_count_once();
    CHECK(trpo_get_threads() >= 1, "%d threads", trpo_get_threads());
    a_limit_holds_from_the_next_section_on_whatever_there_is_room_for();
    a_signal_that_the_caller_blocks_stays_pending();
#ifdef __GLIBC__
    on_every_thread(4, has_a_stack, NULL);
#endif
    threads_calculate_as_their_caller_does();
#ifdef __linux__
    threads_follow_the_affinity_of_their_caller();
#endif
    batches_have_as_many_blocks_as_is_documented();
    a_claim_is_one_threads();
    trpo_set_threads(TRPO_MAX_THREADS);
    for (int repeat = 0; repeat < 50; repeat++) every_task_runs_once(1 + repeat % 9);
    atomic_int nested_runs = 0;
    trpo_parallel(4, 4, outer, &nested_runs);
    CHECK(atomic_load(&nested_runs) == 12, "%d", atomic_load(&nested_runs));
    for_every_table(threads_do_not_change_a_bit);
    for_every_table(the_peak_counts_every_thread);

    const char *emulator = getenv("TRPO_TESTS_SKIP_FORK"); /* one that cannot fork a process with threads */
    if (emulator) {
        printf("== SKIPPED the forked child: %s\n", emulator);
        return 0;
    }
#if !defined(__SANITIZE_THREAD__)
    int claim = 0;
    pthread_t holder;
    CHECK(pthread_create(&holder, NULL, hold, &claim) == 0 && pthread_join(holder, NULL) == 0, "no thread");
    const pid_t child = fork();
    if (child == 0) {
        the_claim_of_a_thread_that_is_gone_is_free(&claim);
        every_task_runs_once(4);
        _exit(0);
    }
    CHECK(!trpo_claim(&claim), "a fork released what is held here");
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %d", status);
#endif
    every_task_runs_once(4);
    return 0;
}
