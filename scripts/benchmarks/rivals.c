/* The same accesses in C, as a program without procvm would make them: the measure of all ratios.
 *
 * Every function makes `n` accesses of `size` bytes, `stride` apart from `address` on unless it is
 * given all addresses, and returns the nanoseconds they took, or -1 if one went wrong. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "now.h"

enum { TOKEN_LEN = 16, MAX_IOV = 1024 };

struct target {
    int pid;
    int pidfd;
    int mem;
    int maps;
    uint64_t token_address;
    unsigned char token[TOKEN_LEN];
};

/* The kernel's struct procmap_query (Linux 6.11), which the headers may not have yet. */
struct map_query {
    uint64_t size, query_flags, query_addr, vma_start, vma_end, vma_flags, vma_page_size;
    uint64_t vma_offset, inode;
    uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
    uint64_t vma_name_addr, build_id_addr;
};
#define MAP_QUERY _IOWR('f', 17, struct map_query)

/* process_vm_readv, believed blindly. */
int64_t readv_raw(const struct target *target, uint64_t address, void *own, uint64_t size,
                  uint64_t stride, uint64_t n)
{
    int64_t start = now();

    for (uint64_t k = 0; k < n; k++) {
        struct iovec local = {own, size};
        struct iovec remote = {(void *)(address + k * stride), size};

        if (process_vm_readv(target->pid, &local, 1, &remote, 1, 0) != (ssize_t)size)
            return -1;
    }
    return now() - start;
}

/* The calls that procvm makes: the token in the same call, then the pidfd. */
int64_t readv_checked(const struct target *target, uint64_t address, void *own, uint64_t size,
                      uint64_t stride, uint64_t n)
{
    int64_t start = now();

    for (uint64_t k = 0; k < n; k++) {
        unsigned char token[TOKEN_LEN];
        struct iovec local[2] = {{token, TOKEN_LEN}, {own, size}};
        struct iovec remote[2] = {{(void *)target->token_address, TOKEN_LEN},
                                  {(void *)(address + k * stride), size}};
        struct pollfd ended = {target->pidfd, POLLIN, 0};

        if (process_vm_readv(target->pid, local, 2, remote, 2, 0) != (ssize_t)(TOKEN_LEN + size))
            return -1;
        if (memcmp(token, target->token, TOKEN_LEN) != 0 || poll(&ended, 1, 0) != 0)
            return -1;
    }
    return now() - start;
}

/* As many elements as fit go into one process_vm_readv, all into one run of own bytes. */
int64_t readv_many(const struct target *target, uint64_t address, void *own, uint64_t size,
                   uint64_t stride, uint64_t n)
{
    int64_t start = now();
    char *to = own;

    for (uint64_t done = 0; done < n;) {
        struct iovec remote[MAX_IOV];
        uint64_t some = n - done < MAX_IOV ? n - done : MAX_IOV;
        struct iovec local = {to + done * size, some * size};

        for (uint64_t k = 0; k < some; k++)
            remote[k] = (struct iovec){(void *)(address + (done + k) * stride), size};
        if (process_vm_readv(target->pid, &local, 1, remote, some, 0) != (ssize_t)(some * size))
            return -1;
        done += some;
    }
    return now() - start;
}

/* One element at each of `n` addresses, in the order they have, into one run of own bytes. */
int64_t readv_at(const struct target *target, const uint64_t *addresses, void *own, uint64_t size,
                 uint64_t n)
{
    int64_t start = now();
    char *to = own;

    for (uint64_t done = 0; done < n;) {
        struct iovec remote[MAX_IOV];
        uint64_t some = n - done < MAX_IOV ? n - done : MAX_IOV;
        struct iovec local = {to + done * size, some * size};

        for (uint64_t k = 0; k < some; k++)
            remote[k] = (struct iovec){(void *)addresses[done + k], size};
        if (process_vm_readv(target->pid, &local, 1, remote, some, 0) != (ssize_t)(some * size))
            return -1;
        done += some;
    }
    return now() - start;
}

int64_t writev_raw(const struct target *target, uint64_t address, void *own, uint64_t size,
                   uint64_t stride, uint64_t n)
{
    int64_t start = now();

    for (uint64_t k = 0; k < n; k++) {
        struct iovec local = {own, size};
        struct iovec remote = {(void *)(address + k * stride), size};

        if (process_vm_writev(target->pid, &local, 1, &remote, 1, 0) != (ssize_t)size)
            return -1;
    }
    return now() - start;
}

/* The calls that procvm makes: what the mapping allows, then a write by the descriptor. */
int64_t pwrite_checked(const struct target *target, uint64_t address, void *own, uint64_t size,
                       uint64_t stride, uint64_t n)
{
    int64_t start = now();

    for (uint64_t k = 0; k < n; k++) {
        struct map_query query = {.size = sizeof query, .query_addr = address + k * stride};

        if (ioctl(target->maps, MAP_QUERY, &query) != 0 || !(query.vma_flags & 2))
            return -1;
        if (pwrite(target->mem, own, size, (off_t)(address + k * stride)) != (ssize_t)size)
            return -1;
    }
    return now() - start;
}
