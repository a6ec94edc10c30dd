/* A target whose threads increment one word by compare-and-exchange, and count their own.
 *
 *   trace_cas THREADS WIDTH KIND WORK
 *
 * WIDTH: 4 or 8 bytes.  KIND: private, memfd (mapped shared) or anonymous (shared).
 * WORK: turns of a loop between a thread's load and its exchange; the more, the more often
 * somebody else's exchange comes between, which makes its own fail.
 * A second thread group, one thread, increments the bytes next to the word by plain stores.
 *
 * It answers "ready ADDRESS BEFORE AFTER READONLY HOLE NONE FD"; "go" starts the threads, "fork"
 * starts a second process that increments the same word (shared kinds), "stop" ends all of them,
 * answered "WORD OWN FAILED NEIGHBOURS": the word, how often they incremented it, how often an
 * exchange failed, and 1 if the neighbours are as its own threads left them.
 * "look ADDRESS" answers the 64-bit word there; "quit" ends it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared { volatile int stop; volatile uint64_t own, failed; };

static struct shared *shared;
static unsigned char *page;
static int width, work;
#define AT 512

static void *increment(void *argument)
{
    uint64_t own = 0, failed = 0;
    (void)argument;
    while (!shared->stop) {
        if (width == 4) {
            uint32_t *word = (uint32_t *)(page + AT);
            uint32_t old = __atomic_load_n(word, __ATOMIC_SEQ_CST);
            for (volatile int k = 0; k < work; k++) ;
            if (__atomic_compare_exchange_n(word, &old, old + 1, 0, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST)) own++;
            else failed++;
        } else {
            uint64_t *word = (uint64_t *)(page + AT);
            uint64_t old = __atomic_load_n(word, __ATOMIC_SEQ_CST);
            for (volatile int k = 0; k < work; k++) ;
            if (__atomic_compare_exchange_n(word, &old, old + 1, 0, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST)) own++;
            else failed++;
        }
    }
    __atomic_add_fetch(&shared->own, own, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&shared->failed, failed, __ATOMIC_SEQ_CST);
    return NULL;
}

static volatile uint32_t before, after;

/* The bytes on both sides: a write of more than the word would bring back old ones. */
static void *neighbour(void *argument)
{
    volatile uint32_t *low = (uint32_t *)(page + AT - 4);
    volatile uint32_t *high = (uint32_t *)(page + AT + width);
    (void)argument;
    while (!shared->stop) {
        (*low)++;
        before++;
        (*high)++;
        after++;
        for (volatile int k = 0; k < work; k++) ;
    }
    return NULL;
}

static int others_are_zero(void)
{
    for (int i = 0; i < 4096; i++)
        if (page[i] && (i < AT - 4 || i >= AT + width + 4)) return 0;
    return 1;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* none outlives a test that was killed */
    if (argc != 5) return 2;
    int threads = atoi(argv[1]), fd = -1;
    width = atoi(argv[2]);
    work = atoi(argv[4]);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (!strcmp(argv[3], "memfd")) {
        fd = memfd_create("trace_cas", 0);
        if (ftruncate(fd, 4096)) return 3;
        flags = MAP_SHARED;
    } else if (!strcmp(argv[3], "anonymous")) {
        flags = MAP_SHARED | MAP_ANONYMOUS;
    }
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, fd, 0);
    unsigned char *rest = mmap(NULL, 4096 * 3, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *(uint64_t *)(rest + 8) = 0x1122334455667788;
    *(uint64_t *)(rest + 4096 * 2 + 8) = 0x1122334455667788;
    mprotect(rest, 4096, PROT_READ);
    munmap(rest + 4096, 4096);
    mprotect(rest + 4096 * 2, 4096, PROT_NONE);
    printf("ready %lx %lx %lx %lx %lx %lx %x\n", (unsigned long)(page + AT),
           (unsigned long)(page + AT - 4), (unsigned long)(page + AT + width),
           (unsigned long)(rest + 8), (unsigned long)(rest + 4096 + 8),
           (unsigned long)(rest + 4096 * 2 + 8), fd < 0 ? 0 : fd);
    fflush(stdout);

    pthread_t ids[64];
    int started = 0;
    pid_t other = 0;
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "go", 2)) {
            for (; started < threads; started++)
                if (pthread_create(&ids[started], NULL, increment, NULL)) return 4;
            if (pthread_create(&ids[started++], NULL, neighbour, NULL)) return 4;
            puts("ok");
        } else if (!strncmp(line, "fork", 4)) {
            if ((other = fork()) == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                increment(NULL);
                _exit(0);
            }
            printf("%d\n", other);
        } else if (!strncmp(line, "stop", 4)) {
            shared->stop = 1;
            for (int k = 0; k < started; k++) pthread_join(ids[k], NULL);
            if (other) waitpid(other, NULL, 0);
            uint64_t word = width == 4 ? *(uint32_t *)(page + AT) : *(uint64_t *)(page + AT);
            int good = *(uint32_t *)(page + AT - 4) == before &&
                       *(uint32_t *)(page + AT + width) == after && others_are_zero();
            printf("%lu %lu %lu %d\n", word, (unsigned long)shared->own,
                   (unsigned long)shared->failed, good);
        } else if (!strncmp(line, "look ", 5)) {
            uint64_t *at = (uint64_t *)strtoul(line + 5, NULL, 16);
            if (((uintptr_t)at & -4096ul) != (uintptr_t)page)
                mprotect((void *)((uintptr_t)at & -4096ul), 4096, PROT_READ);
            printf("%lx\n", (unsigned long)*at);
        } else {
            return 0;
        }
        fflush(stdout);
    }
    return 0;
}
