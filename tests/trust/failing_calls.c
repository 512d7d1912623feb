/* Preloaded (LD_PRELOAD), it lets one call of the C library fail: the k-th allocation that chosen libraries ask for, the k-th
 * thread, the k-th fork, the k-th change of a file. All other calls are the C library's own. tests/trust/failing_calls.py builds it and speaks to it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ALLOCATION = 1, THREAD = 2, FORK = 3, CHANGE = 4, MOST_RANGES = 64 };

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static uintptr_t ranges[MOST_RANGES][2];
static int range_count;
static atomic_int kind;
static atomic_long first, end, count;

/* Code that lies in [low, high) is one of the libraries whose allocations count. */
void failing_add_range(uintptr_t low, uintptr_t high) {
    if (range_count < MOST_RANGES) ranges[range_count][0] = low, ranges[range_count][1] = high, range_count++;
}

void failing_forget_ranges(void) { range_count = 0; }

/* From now on count calls of this kind, and let those from number `from`, the first is 1, until `until` fail. */
void failing_begin(int which, long from, long until) {
    atomic_store(&count, 0), atomic_store(&first, from), atomic_store(&end, until), atomic_store(&kind, which);
}

/* How many there were; none fails any more. */
long failing_end(void) {
    atomic_store(&kind, 0);
    return atomic_load(&count);
}

static int fails(void) {
    const long number = atomic_fetch_add(&count, 1) + 1;
    return number >= atomic_load(&first) && number < atomic_load(&end);
}

static int allocation_fails(const void *caller) {
    if (atomic_load(&kind) != ALLOCATION) return 0;
    for (int i = 0; i < range_count; i++)
        if ((uintptr_t)caller >= ranges[i][0] && (uintptr_t)caller < ranges[i][1]) return fails();
    return 0;
}

void *malloc(size_t size) {
    if (allocation_fails(__builtin_return_address(0))) return errno = ENOMEM, NULL;
    return __libc_malloc(size);
}

void *calloc(size_t items, size_t size) {
    if (allocation_fails(__builtin_return_address(0))) return errno = ENOMEM, NULL;
    return __libc_calloc(items, size);
}

void *realloc(void *block, size_t size) {
    if (allocation_fails(__builtin_return_address(0))) return errno = ENOMEM, NULL;
    return __libc_realloc(block, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    if (allocation_fails(__builtin_return_address(0))) return errno = ENOMEM, NULL;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size) {
    if (allocation_fails(__builtin_return_address(0))) return ENOMEM;
    void *made = __libc_memalign(alignment, size);
    if (!made) return ENOMEM;
    *block = made;
    return 0;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (atomic_load(&kind) == THREAD && fails()) return EAGAIN;
    return real(thread, attributes, run, argument);
}

pid_t fork(void) {
    static pid_t (*real)(void);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fork");
    if (atomic_load(&kind) == FORK && fails()) return errno = EAGAIN, -1;
    return real();
}

/* ENOSPC, as a full disk gives it, where this change of a regular file, or of a folder, is to fail. */
static int change_fails(int handle) {
    struct stat of;
    if (atomic_load(&kind) != CHANGE || (handle >= 0 && (fstat(handle, &of) != 0 || !S_ISREG(of.st_mode)))) return 0;
    if (fails()) return errno = ENOSPC, 1;
    return 0;
}

ssize_t write(int handle, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "write");
    return change_fails(handle) ? -1 : real(handle, data, size);
}

int fsync(int handle) {
    static int (*real)(int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "fsync");
    return change_fails(handle) ? -1 : real(handle);
}

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "rename");
    return change_fails(-1) ? -1 : real(from, to);
}

int link(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "link");
    return change_fails(-1) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
    static int (*real)(const char *, mode_t);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "mkdir");
    return change_fails(-1) ? -1 : real(path, mode);
}
