/* The process that is read and stopped: pages that are all there, whose address it prints.
 *   target LEN               sleeps until stdin ends
 *   target LEN threads N     the same, N threads in all
 *   target LEN spin          never sleeps; ends with the thread that started it */
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

int main(int argc, char **argv)
{
    size_t len = argc > 1 ? strtoul(argv[1], NULL, 10) : 1 << 20;
    unsigned char *data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int spins = argc > 2 && strcmp(argv[2], "spin") == 0;
    char end;

    if (data == MAP_FAILED)
        return 1;
    /* Pages of the usual size: whether there are huge ones depends on the machine. */
    madvise(data, len, MADV_NOHUGEPAGE);
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
