/* A target whose work is done by the kernel's own threads for io_uring.
 *
 *   trace_uring FD      "ready 0"; FD is a memfd of 64-bit words: [4] 1 when it has begun,
 *                       [16] requests done, [40] what the last one read
 *
 * One worker does a request after the other, and a thread polls an idle ring without end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <signal.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* none outlives a test that was killed */
    if (argc < 2) return 2;
    volatile uint64_t *words =
        mmap(NULL, 4096 * 4, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
    struct io_uring_params ring = {0}, polled = {.flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 60000};
    int fd = syscall(SYS_io_uring_setup, 4, &ring);
    if (fd < 0 || syscall(SYS_io_uring_setup, 4, &polled) < 0) {
        printf("refused %x\n", errno);
        return 0;
    }
    size_t n = ring.cq_off.cqes + ring.cq_entries * sizeof(struct io_uring_cqe);
    size_t m = ring.sq_off.array + ring.sq_entries * 4;
    char *memory = mmap(NULL, n > m ? n : m, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries =
        mmap(NULL, 4 * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
    if (words == MAP_FAILED || memory == MAP_FAILED || entries == MAP_FAILED) return 3;
    uint32_t *tail = (uint32_t *)(memory + ring.sq_off.tail);
    uint32_t *array = (uint32_t *)(memory + ring.sq_off.array);
    uint32_t *done = (uint32_t *)(memory + ring.cq_off.tail);
    uint32_t *taken = (uint32_t *)(memory + ring.cq_off.head);
    int source = open("/dev/urandom", O_RDONLY);
    printf("ready 0\n");
    fflush(stdout);
    for (;;) {
        memset(entries, 0, sizeof *entries);
        entries[0].opcode = IORING_OP_READ;
        entries[0].flags = IOSQE_ASYNC; /* by a worker, always */
        entries[0].fd = source;
        entries[0].addr = (uint64_t)&words[40];
        entries[0].len = 8;
        array[*tail % ring.sq_entries] = 0;
        __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
        int left = 1;
        while (__atomic_load_n(done, __ATOMIC_ACQUIRE) == *taken) {
            long sent = syscall(SYS_io_uring_enter, fd, left, 1, IORING_ENTER_GETEVENTS, NULL, 0);
            if (sent > 0) left = 0;
            else if (sent < 0 && errno != EINTR) return 4;
        }
        __atomic_store_n(taken, *taken + 1, __ATOMIC_RELEASE);
        words[16]++;
        words[4] = 1;
    }
}
