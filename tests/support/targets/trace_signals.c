/* A target that records every signal, and a sender of numbered ones.
 *
 *   trace_signals record FD THREADS     records into the words of memfd FD
 *   trace_signals default               has every signal's default effect; "ready", then waits
 *   trace_signals send PID SIGNO FIRST COUNT     queues COUNT signals, numbered from FIRST
 *
 * Words of FD: [0] ready, [1] numbered signals seen, [2] of them out of order, [3] with a sender or
 * code that is not as sent, [4] turns of the work of the main thread, [64 + s] signals s seen,
 * [128 + s] the last number of real-time signal s, [192 + s] the sum of its numbers.
 * Thread 0 takes the signals; the others have all of them blocked, and spin or wait.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile uint64_t *words;

static void seen(int signo, siginfo_t *info, void *context)
{
    (void)context;
    words[64 + signo]++;
    if (signo >= SIGRTMIN) {
        uint64_t number = (uint64_t)info->si_value.sival_ptr;
        if (number != words[128 + signo] + 1) words[2]++;
        words[128 + signo] = number;
        words[192 + signo] += number;
        if (info->si_code != SI_QUEUE || info->si_uid != getuid() || info->si_pid == 0) words[3]++;
        words[1]++;
    }
}

static void *spin(void *argument)
{
    (void)argument;
    for (;;) words[5]++;
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
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (argc == 6 && !strcmp(argv[1], "send")) {
        pid_t pid = atoi(argv[2]);
        int signo = atoi(argv[3]);
        uint64_t first = strtoul(argv[4], NULL, 10), count = strtoul(argv[5], NULL, 10);
        for (uint64_t k = first; k < first + count; k++) {
            union sigval value = {.sival_ptr = (void *)k};
            while (sigqueue(pid, signo, value)) {
                if (errno != EAGAIN) return 3;
                sched_yield();
            }
            if (k % 2 == 0) usleep(k % 400);
        }
        return 0;
    }
    sigset_t all, none_set;
    sigfillset(&all);
    sigemptyset(&none_set);
    if (argc == 2 && !strcmp(argv[1], "default")) {
        for (int signo = 1; signo < 65; signo++) signal(signo, SIG_DFL);
        sigprocmask(SIG_SETMASK, &none_set, NULL);
        puts("ready");
        fflush(stdout);
        for (;;) pause();
    }
    if (argc != 4) return 2;
    words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[2]), 0);
    if (words == MAP_FAILED) return 3;
    sigprocmask(SIG_BLOCK, &all, NULL);
    for (int k = 1; k < atoi(argv[3]); k++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, k == 1 ? spin : wait_for_ever, NULL)) return 4;
    }
    for (int signo = 1; signo < 65; signo++) {
        struct sigaction action = {.sa_sigaction = seen, .sa_flags = SA_SIGINFO | SA_RESTART};
        action.sa_mask = all;
        sigaction(signo, &action, NULL);
    }
    sigprocmask(SIG_SETMASK, &none_set, NULL);
    words[0] = 1;
    for (;;) {
        words[4]++;
        for (volatile int k = 0; k < 1000; k++) ;
    }
}
