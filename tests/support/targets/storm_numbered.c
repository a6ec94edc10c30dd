/* Numbered real-time signals: eight threads that record them, and the sender.
 *
 *   storm_numbered record BOARD_FD COUNT
 *   storm_numbered send BOARD_FD COUNT PID
 *
 * The board is a page of words, then a byte for each number from 1 to COUNT: how often its handler ran.
 * Number n goes to thread n % 9, or to the process when that is 8, as signal FIRST + n / 9 % 4. So the
 * numbers that one thread handles for one signal, and for one way of sending, have to rise.
 * The sender waits while more than WINDOW signals are neither handled nor taken by the tool, and while
 * the storm permits no more.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 8
#define FIRST 40
#define KINDS 4
#define REPLACEMENT 60
#define WINDOW 400

/* The words; scripts/soaking/numbered.py has the same names. */
enum { READY, SENT, HANDLED, DISORDER, STRANGE, REPLACED, STOP, TOLD, TAKEN, IDLE, PERMIT, TIDS = 16 };

static volatile uint64_t *words;
static volatile uint8_t *handled;
static uint64_t count;
static __thread uint64_t last[2][KINDS];
static __thread int self;

static void add(int at) { __atomic_fetch_add(&words[at], 1, __ATOMIC_SEQ_CST); }

static void on_number(int signo, siginfo_t *info, void *context)
{
    (void)context;
    uint64_t n = (uint64_t)info->si_value.sival_ptr, whole = n % 9 == THREADS;
    if (n < 1 || n > count || info->si_code != SI_QUEUE || signo != FIRST + (int)(n / 9 % KINDS) ||
        (!whole && n % 9 != (uint64_t)self)) {
        add(STRANGE);
        return;
    }
    if (n <= last[whole][signo - FIRST]) add(DISORDER);
    last[whole][signo - FIRST] = n;
    __atomic_fetch_add(&handled[n], 1, __ATOMIC_SEQ_CST);
    add(HANDLED);
}

static void on_replacement(int signo) { (void)signo, add(REPLACED); }

static void *work(void *argument)
{
    volatile uint64_t x = 1;
    sigset_t none;
    self = (int)(intptr_t)argument;
    words[TIDS + self] = gettid();
    add(READY);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    for (;;) {
        if (self % 4) pause();
        else
            for (int k = 0; k < 100000; k++) x = x * 3 + 1;
    }
    return NULL;
}

static void record(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_RESTART, .sa_sigaction = on_number};
    pthread_t thread;
    sigset_t all;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    for (int k = 0; k < KINDS; k++) sigaction(FIRST + k, &action, NULL);
    signal(REPLACEMENT, on_replacement);
    for (intptr_t k = 1; k < THREADS; k++)
        if (pthread_create(&thread, NULL, work, (void *)k)) exit(1);
    work(NULL);
}

static void send_all(pid_t pid)
{
    for (uint64_t n = 1; n <= count; n++) {
        siginfo_t info = {.si_code = SI_QUEUE, .si_pid = getpid(), .si_uid = getuid()};
        int signo = FIRST + n / 9 % KINDS;
        long rc;
        info.si_value.sival_ptr = (void *)n;
        while ((words[SENT] > words[HANDLED] + words[TAKEN] + WINDOW ||
                words[SENT] >= words[PERMIT]) && !words[STOP]) usleep(100);
        if (words[STOP]) return;
        do {
            rc = n % 9 == THREADS
                ? syscall(SYS_rt_sigqueueinfo, pid, signo, &info)
                : syscall(SYS_rt_tgsigqueueinfo, pid, (pid_t)words[TIDS + n % 9], signo, &info);
        } while (rc && errno == EAGAIN && !usleep(100));
        if (rc) exit(1);
        words[SENT]++;
    }
}

int main(int argc, char **argv)
{
    if (argc < 4) return 2;
    count = strtoull(argv[3], NULL, 10);
    words = mmap(NULL, 4096 + count + 1, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[2]), 0);
    if (words == MAP_FAILED) return 1;
    handled = (volatile uint8_t *)words + 4096;
    if (!strcmp(argv[1], "record")) record();
    else send_all(atoi(argv[4]));
    return 0;
}
