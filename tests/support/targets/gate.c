/* LD_PRELOAD: holds a thread of the tool at the entry of one call, so that a test can change the
 * target at that very moment.
 *
 * gate_arm(n, out, in): the n-th call from now on writes a byte to `out`, and goes on when it has
 * read one from `in`. gate_arm(0, ...) disarms. gate_passed() answers how many calls there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile long left, passed;
static int out_fd, in_fd;

void gate_arm(long n, int out, int in)
{
    out_fd = out;
    in_fd = in;
    passed = 0;
    left = n;
}

long gate_passed(void)
{
    return passed;
}

static void gate(void)
{
    char byte = 0;
    if (left == 0) return;
    passed++;
    if (--left) return;
    syscall(SYS_write, out_fd, &byte, 1);
    syscall(SYS_read, in_fd, &byte, 1);
}

static int opened(const char *path, int flags, va_list rest)
{
    gate();
    return syscall(SYS_openat, AT_FDCWD, path, flags, va_arg(rest, mode_t));
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int fd = opened(path, flags, rest);
    va_end(rest);
    return fd;
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int fd = opened(path, flags, rest);
    va_end(rest);
    return fd;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    va_start(rest, request);
    long argument = va_arg(rest, long);
    va_end(rest);
    gate();
    return syscall(SYS_ioctl, fd, request, argument);
}

int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    gate();
    return syscall(SYS_poll, fds, n, timeout);
}

ssize_t read(int fd, void *buf, size_t n)
{
    if (fd > 2) gate();
    return syscall(SYS_read, fd, buf, n);
}

ssize_t pread64(int fd, void *buf, size_t n, off64_t offset)
{
    gate();
    return syscall(SYS_pread64, fd, buf, n, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
    gate();
    return syscall(SYS_pwrite64, fd, buf, n, offset);
}

ssize_t readlink(const char *path, char *buf, size_t n)
{
    gate();
    return syscall(SYS_readlinkat, AT_FDCWD, path, buf, n);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long nr_local,
                         const struct iovec *remote, unsigned long nr_remote, unsigned long flags)
{
    gate();
    return syscall(SYS_process_vm_readv, pid, local, nr_local, remote, nr_remote, flags);
}

ssize_t process_vm_writev(pid_t pid, const struct iovec *local, unsigned long nr_local,
                          const struct iovec *remote, unsigned long nr_remote, unsigned long flags)
{
    gate();
    return syscall(SYS_process_vm_writev, pid, local, nr_local, remote, nr_remote, flags);
}
