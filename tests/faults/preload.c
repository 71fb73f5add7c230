// Counts the file operations of a process and its children below one folder, and lets the n-th of them fail.
//
// Loaded with LD_PRELOAD. FAULT_CONTROL names a file of one `struct control`, mapped by everyone who takes part, so the
// order of operations is one for all processes. Only calls that change something under `root` count: opening for
// writing, writing, renaming, linking, removing, making folders, truncating, flushing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    char root[1024];
    int64_t count;    // operations so far
    int64_t at;       // the operation that fails, from 1; 0: none
    int64_t action;   // 0: SIGKILL before it; an errno: it fails with it
    int64_t lasting;  // 1: all later operations that need space fail too
    int64_t fired;    // whether it happened
};

static struct control *control;

__attribute__((constructor)) static void map_control(void) {
    const char *name = getenv("FAULT_CONTROL");
    if (!name) return;
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = real(name, O_RDWR);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(fd);
}

static int below_root(const char *path) {
    size_t length = strlen(control->root);
    return length && !strncmp(path, control->root, length) && (path[length] == '/' || !path[length]);
}

static int counted_path(int directory, const char *path) {
    char whole[PATH_MAX], link[64];
    if (!control || !control->root[0] || !path) return 0;
    if (path[0] == '/') return below_root(path);
    if (directory == AT_FDCWD) {
        if (!getcwd(whole, sizeof whole)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        ssize_t n = readlink(link, whole, sizeof whole - 1);
        if (n < 0) return 0;
        whole[n] = 0;
    }
    size_t n = strlen(whole);
    snprintf(whole + n, sizeof whole - n, "/%s", path);
    return below_root(whole);
}

static int counted_fd(int fd) {
    char whole[PATH_MAX], link[64];
    if (!control || !control->root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, whole, sizeof whole - 1);
    if (n < 0) return 0;
    whole[n] = 0;
    return below_root(whole);
}

// 0: go on; else the errno with which this operation fails
static int strike(int counted, int needs_space) {
    if (!counted) return 0;
    int64_t number = __sync_add_and_fetch(&control->count, 1);
    if (!control->at || number < control->at) return 0;
    if (number > control->at && !(control->lasting && needs_space)) return 0;
    if (control->action == ENOSPC && !needs_space) {  // removing needs none; the next that does fails
        if (number == control->at) __sync_add_and_fetch(&control->at, 1);
        return 0;
    }
    control->fired = 1;
    if (!control->action) kill(getpid(), SIGKILL);
    return (int)control->action;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define STRIKE(counted, space) \
    do { int e_ = strike(counted, space); if (e_) { errno = e_; return -1; } } while (0)
#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & O_CREAT))
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; va_end(rest); \
        REAL(name); if (WRITES(flags)) STRIKE(counted_path(AT_FDCWD, path), 1); return real(path, flags, mode); }
#define OPENAT(name) \
    int name(int directory, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; va_end(rest); \
        REAL(name); if (WRITES(flags)) STRIKE(counted_path(directory, path), 1); return real(directory, path, flags, mode); }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

FILE *fopen(const char *path, const char *mode) {
    REAL(fopen);
    int e = strpbrk(mode, "wa+") ? strike(counted_path(AT_FDCWD, path), 1) : 0;
    if (e) { errno = e; return NULL; }
    return real(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    REAL(fopen64);
    int e = strpbrk(mode, "wa+") ? strike(counted_path(AT_FDCWD, path), 1) : 0;
    if (e) { errno = e; return NULL; }
    return real(path, mode);
}
ssize_t write(int fd, const void *bytes, size_t n) { REAL(write); STRIKE(counted_fd(fd), 1); return real(fd, bytes, n); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); STRIKE(counted_fd(fd), 1); return real(fd, v, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(pwrite); STRIKE(counted_fd(fd), 1); return real(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(pwrite64); STRIKE(counted_fd(fd), 1); return real(fd, b, n, o); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); STRIKE(counted_fd(fd), 1); return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); STRIKE(counted_fd(fd), 1); return real(fd, n); }
int truncate(const char *p, off_t n) { REAL(truncate); STRIKE(counted_path(AT_FDCWD, p), 1); return real(p, n); }
int fsync(int fd) { REAL(fsync); STRIKE(counted_fd(fd), 1); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); STRIKE(counted_fd(fd), 1); return real(fd); }
int rename(const char *a, const char *b) { REAL(rename); STRIKE(counted_path(AT_FDCWD, b), 1); return real(a, b); }
int renameat(int x, const char *a, int y, const char *b) { REAL(renameat); STRIKE(counted_path(y, b), 1); return real(x, a, y, b); }
int renameat2(int x, const char *a, int y, const char *b, unsigned f) { REAL(renameat2); STRIKE(counted_path(y, b), 1); return real(x, a, y, b, f); }
int link(const char *a, const char *b) { REAL(link); STRIKE(counted_path(AT_FDCWD, b), 1); return real(a, b); }
int linkat(int x, const char *a, int y, const char *b, int f) { REAL(linkat); STRIKE(counted_path(y, b), 1); return real(x, a, y, b, f); }
int mkdir(const char *p, mode_t m) { REAL(mkdir); STRIKE(counted_path(AT_FDCWD, p), 1); return real(p, m); }
int mkdirat(int d, const char *p, mode_t m) { REAL(mkdirat); STRIKE(counted_path(d, p), 1); return real(d, p, m); }
int unlink(const char *p) { REAL(unlink); STRIKE(counted_path(AT_FDCWD, p), 0); return real(p); }
int unlinkat(int d, const char *p, int f) { REAL(unlinkat); STRIKE(counted_path(d, p), 0); return real(d, p, f); }
int rmdir(const char *p) { REAL(rmdir); STRIKE(counted_path(AT_FDCWD, p), 0); return real(p); }
