/* The process that is read and stopped: pages that are all there, whose address it prints.
 *   target LEN               sleeps until stdin ends
 *   target LEN threads N     the same, N threads in all
 *   target LEN spin          never sleeps; ends with the thread that started it
 *   target LEN heap          sleeps; its words are such as a heap's, not their own numbers
 *   target LEN sparse        sleeps; nothing is written to its pages */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { STACK_LEN = 1 << 16 };

static void *sleeps(void *nothing)
{
    for (;;)
        pause();
    return nothing;
}

static int start_threads(long n)
{
    pthread_attr_t small;
    pthread_t thread;

    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK_LEN);
    while (n-- > 0)
        if (pthread_create(&thread, &small, sleeps, NULL) != 0)
            return -1;
    return 0;
}

/* Of four words a pointer, a small number, a zero, and what stands in text or in a float. */
static void fill_as_heap(unsigned char *data, size_t len)
{
    unsigned long random = 88172645463325252;

    for (size_t k = 0; k < len; k += 32) {
        unsigned long words[4];

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        words[0] = (unsigned long)data + (random % len & ~7ul);
        words[1] = random >> 44;
        words[2] = 0;
        words[3] = random;
        memcpy(data + k, words, sizeof words);
    }
}

int main(int argc, char **argv)
{
    size_t len = argc > 1 ? strtoul(argv[1], NULL, 10) : 1 << 20;
    unsigned char *data = mmap(NULL, len, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const char *how = argc > 2 ? argv[2] : "";
    int spins = strcmp(how, "spin") == 0;
    char end;

    if (data == MAP_FAILED)
        return 1;
    /* Pages of the usual size: whether there are huge ones depends on the machine. */
    madvise(data, len, MADV_NOHUGEPAGE);
    if (strcmp(how, "heap") == 0)
        fill_as_heap(data, len);
    else if (strcmp(how, "sparse") != 0)
        for (size_t k = 0; k < len; k += 8)
            memcpy(data + k, &k, 8);
    /* Where Yama lets a process be read by its parent only. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    if (argc > 3 && start_threads(strtol(argv[3], NULL, 10) - 1) != 0)
        return 1;
    if (spins)
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    printf("%lu\n", (unsigned long)data);
    fflush(stdout);
    if (spins)
        for (volatile unsigned long turns = 0;; turns++)
            ;
    while (read(0, &end, 1) > 0)
        ;
    return 0;
}
