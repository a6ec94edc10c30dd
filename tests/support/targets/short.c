/* LD_PRELOAD: the calls move fewer bytes than were asked for, as a call may; what they do move is
 * what the kernel moved.
 *
 * short_arm(most, every): from now on every so many calls moves so many bytes at most; 0 disarms.
 * Descriptors 0 to 2 are left alone. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static size_t most;
static unsigned long every;

void short_arm(size_t most_bytes, unsigned long every_calls)
{
    most = most_bytes;
    every = every_calls;
}

static size_t cut(size_t n)
{
    static __thread unsigned long calls;
    if (every == 0 || ++calls % every) return n;
    return n < most ? n : most;
}

static unsigned long total(const struct iovec *vec, unsigned long n)
{
    unsigned long sum = 0;
    for (unsigned long k = 0; k < n; k++) sum += vec[k].iov_len;
    return sum;
}

static unsigned long trim(struct iovec *to, const struct iovec *from, unsigned long n, size_t room)
{
    unsigned long k;
    for (k = 0; k < n && room; k++) {
        to[k] = from[k];
        if (to[k].iov_len > room) to[k].iov_len = room;
        room -= to[k].iov_len;
    }
    return k;
}

static ssize_t moved(long number, pid_t pid, const struct iovec *local, unsigned long nr_local,
                     const struct iovec *remote, unsigned long nr_remote, unsigned long flags)
{
    struct iovec ours[1024], theirs[1024];
    if (nr_local > 1024 || nr_remote > 1024)
        return syscall(number, pid, local, nr_local, remote, nr_remote, flags);
    size_t room = cut(total(remote, nr_remote));
    nr_local = trim(ours, local, nr_local, room);
    nr_remote = trim(theirs, remote, nr_remote, room);
    return syscall(number, pid, ours, nr_local, theirs, nr_remote, flags);
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long nr_local,
                         const struct iovec *remote, unsigned long nr_remote, unsigned long flags)
{
    return moved(SYS_process_vm_readv, pid, local, nr_local, remote, nr_remote, flags);
}

ssize_t process_vm_writev(pid_t pid, const struct iovec *local, unsigned long nr_local,
                          const struct iovec *remote, unsigned long nr_remote, unsigned long flags)
{
    return moved(SYS_process_vm_writev, pid, local, nr_local, remote, nr_remote, flags);
}

ssize_t pread64(int fd, void *buf, size_t n, off64_t offset)
{
    return syscall(SYS_pread64, fd, buf, cut(n), offset);
}

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
    return syscall(SYS_pread64, fd, buf, cut(n), offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset)
{
    return syscall(SYS_pwrite64, fd, buf, cut(n), offset);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    return syscall(SYS_pwrite64, fd, buf, cut(n), offset);
}

ssize_t read(int fd, void *buf, size_t n)
{
    return syscall(SYS_read, fd, buf, fd > 2 ? cut(n) : n);
}
