/* A target that runs itself again and again, by exec from its leader or from another thread.
 *
 *   trace_exec FD WHO        WHO: leader or thread
 *
 * Words of memfd FD: [0] images begun, [1] set by the test to end it, [2] set by the last image
 * when it has begun, after which the process waits for ever.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile uint64_t *words;
static char **arguments;

static void *run_again(void *argument)
{
    (void)argument;
    for (volatile uint64_t k = 0; k < (words[0] * 7919) % 100000; k++) ;
    execv("/proc/self/exe", arguments);
    _exit(9);
}

static void *spin(void *argument)
{
    (void)argument;
    for (volatile int k = 0;; k++) ;
    return NULL;
}

static void *wait_for_ever(void *argument)
{
    (void)argument;
    for (;;) pause();
    return NULL;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* none outlives a test that was killed */
    if (argc != 3) return 2;
    arguments = argv;
    words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
    if (words == MAP_FAILED) return 3;
    words[0]++;
    pthread_t thread;
    if (words[1]) {
        words[2] = 1;
        for (;;) pause();
    }
    pthread_create(&thread, NULL, spin, NULL);
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    if (!strcmp(argv[2], "thread")) {
        pthread_create(&thread, NULL, run_again, NULL);
        for (;;) pause();
    }
    run_again(NULL);
    return 1;
}
