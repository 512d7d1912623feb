/* Files of control groups and of the processors' topology with any content, and sections of the pool. */
#define _GNU_SOURCE
#include <limits.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

static void put_bytes(const char *folder, const char *name, const void *content, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    CHECK(file, "%s", path);
    fwrite(content, 1, n, file);
    fclose(file);
}

/* A number that arithmetic may stumble over, or a small one. */
static long take_integer(input *in) {
    static const long hostile[] = {0, -1, INT_MAX, LONG_MAX, LONG_MIN, 100000};
    const size_t code = take(in, 256);
    return code < 6 ? hostile[code] : (long)code - 5;
}

/* Two numbers, or any bytes. */
static void put(const char *folder, const char *name, input *in, size_t most) {
    if (take(in, 2)) {
        char text[64];
        const long first = take_integer(in), second = take_integer(in);
        put_bytes(folder, name, text, (size_t)snprintf(text, sizeof text, "%ld %ld\n", first, second));
        return;
    }
    size_t n = take(in, most + 1);
    if (n > in->left) n = in->left;
    put_bytes(folder, name, in->data, n);
    in->data += n, in->left -= n;
}

static const char *folder_of(const char *root, const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    mkdir(path, 0700);
    return path;
}

static atomic_int done[64];
static void task(void *context, int i, int thread) {
    CHECK(context == done && thread >= 0 && thread < 8, "thread %d", thread);
    atomic_fetch_add(&done[i], 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char root[128];
    if (!root[0]) {
        const char *temporary = getenv("TMPDIR");
        snprintf(root, sizeof root, "%s/trpo-fuzz-XXXXXX", temporary ? temporary : "/tmp");
        CHECK(mkdtemp(root), "%s", root);
        folder_of(root, "cpu"), folder_of(root, "cpu/a"), folder_of(root, "a"), folder_of(root, "cpu0");
        folder_of(root, "cpu1"), folder_of(root, "cpu0/topology"), folder_of(root, "cpu1/topology");
    }
    input in = {data, size};
    switch (take(&in, 3)) {
    case 0: {
        static const char *const groups[] = {"0::/a\n", "4:cpu,cpuacct:/a\n", "4:cpuacct,cpu:/\n0::/a/b\n",
                                             "0:\n:\n::\n"};
        const char *where[] = {"", "a", "cpu", "cpu/a"};
        char path[256];
        const size_t known = take(&in, 5);
        for (size_t i = 0; i < 4; i++) {
            put(folder_of(root, where[i]), "cpu.max", &in, 48);
            put(folder_of(root, where[i]), "cpu.cfs_quota_us", &in, 24);
            put(folder_of(root, where[i]), "cpu.cfs_period_us", &in, 24);
        }
        snprintf(path, sizeof path, "%s/membership", root);
        if (known < 4)
            put_bytes(root, "membership", groups[known], strlen(groups[known]));
        else
            put(root, "membership", &in, 4096);
        CHECK(trpo_cgroup_cores(path, root) >= 0, "fewer than no cores");
        break;
    }
    case 1: {
        int processors[] = {0, 1, 2};
        put(folder_of(root, "cpu0/topology"), "thread_siblings_list", &in, 24);
        put(folder_of(root, "cpu1/topology"), "thread_siblings_list", &in, 24);
        const int count = (int)take(&in, 4), cores = trpo_physical_cores(root, processors, count);
        CHECK(cores >= (count > 0) && cores <= count, "%d cores of %d processors", cores, count);
        break;
    }
    default: {
        const int tasks = (int)take(&in, 64), threads = 1 + (int)take(&in, 8), count = (int)take(&in, 9);
        static int claim;
        memset(done, 0, sizeof done);
        trpo_set_floating_mode(take(&in, 2) ? trpo_floating_mode() | 0x8040 : 0);
        trpo_set_threads(count);
        CHECK(trpo_chosen_threads() == count && trpo_get_threads() >= 1, "%d threads", trpo_get_threads());
        CHECK(trpo_usable_cores() >= 1 && trpo_openmp_limit() >= 1, "%d cores", trpo_usable_cores());
        trpo_parallel(tasks, threads, task, done);
        for (int i = 0; i < tasks; i++) CHECK(atomic_load(&done[i]) == 1, "task %d", i);
        CHECK(trpo_claim(&claim) && !trpo_claim(&claim), "a claim of two");
        trpo_release(&claim);
        trpo_set_floating_mode(0);
    }
    }
    return 0;
}
