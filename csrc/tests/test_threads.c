/* The pool: every task runs once, results do not depend on the number of threads, and a forked child can go on. */
#define _GNU_SOURCE /* mkdtemp */
#include "policy_fixture.h"

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
    char root[] = "/tmp/trpo_cgroup_XXXXXX", inner[64], v1[64], member[64];
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

static void the_peak_counts_every_thread(const trpo_kernels *k) {
    const double one = k->multiply_adds(10, 1);
    CHECK(one > 0 && k->multiply_adds(20, 3) == 6 * one, "%s: %g", k->isa, one);
}

int main(void) {
    control_groups_limit_the_cores();
    CHECK(trpo_get_threads() >= 1, "%d threads", trpo_get_threads());
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
#if !defined(__SANITIZE_THREAD__) /* it does not follow a fork with threads */
    const pid_t child = fork();
    if (child == 0) {
        every_task_runs_once(4);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %d", status);
#endif
    every_task_runs_once(4);
    return 0;
}
