/* A target to be stepped. Usage: stepped MODE [SIGTRAP]. In MODE work it runs branches of all kinds,
 * in calls system calls and signals, in itself one jump to itself, in block it waits in pause();
 * it says "ready" first. SIGTRAP is default, ignored, handled, blocked (and handled), or busy: default, with all others handled.
 * On SIGUSR2 it tells its action for SIGTRAP, whether it blocks it, and how many SIGTRAP and
 * SIGRTMIN its handlers got; then it ends with 7. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int handled;
static volatile unsigned traps, queued;

static void on_usr1(int signo) { (void)signo; handled++; }
static void on_queued(int signo) { (void)signo; queued++; }
static void on_trap(int signo) { (void)signo; traps++; }

static int f0(int x) { return x * 3; }
static int f1(int x) { return x ^ 5; }
static int f2(int x) { return x + 7; }
static int (*volatile table[3])(int) = {f0, f1, f2};

static unsigned fib(unsigned n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static void report(int signo)
{
    struct sigaction action;
    sigset_t mask;
    char line[80];
    (void)signo;
    sigaction(SIGTRAP, NULL, &action);
    sigprocmask(SIG_BLOCK, NULL, &mask);
    int length = snprintf(line, sizeof line, "%s %s traps=%u queued=%u\n",
                          action.sa_handler == SIG_DFL   ? "default"
                          : action.sa_handler == SIG_IGN ? "ignored"
                                                         : "handled",
                          sigismember(&mask, SIGTRAP) ? "blocked" : "open", traps,
                          queued);
    _exit(write(STDOUT_FILENO, line, (size_t)length) == length ? 7 : 8);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "work", *trap = argc > 2 ? argv[2] : "default";
    char a[256], b[256];
    struct timespec now;
    unsigned v = 1;
    memset(a, 1, sizeof a);
    signal(SIGUSR1, on_usr1);
    signal(SIGRTMIN, on_queued);
    signal(SIGUSR2, report);
    if (!strcmp(trap, "ignored")) signal(SIGTRAP, SIG_IGN);
    if (!strcmp(trap, "handled") || !strcmp(trap, "blocked")) signal(SIGTRAP, on_trap);
    if (!strcmp(trap, "blocked")) {
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGTRAP);
        sigprocmask(SIG_BLOCK, &mask, NULL);
    }
    if (!strcmp(trap, "busy"))
        for (int signo = 1; signo < 32; signo++)
            if (signo != SIGUSR2 && signo != SIGTRAP) signal(signo, on_usr1);
    if (write(STDOUT_FILENO, "ready\n", 6) != 6) return 1;
    if (!strcmp(mode, "itself"))
        __asm__ volatile("here: jmp here");
    if (!strcmp(mode, "calls"))
        for (;;) {
            syscall(SYS_getppid);
            raise(SIGUSR1);
        }
    if (!strcmp(mode, "block"))
        for (;;) pause();
    for (unsigned i = 0;; i++) {
        v = (unsigned)table[i % 3]((int)v);
        switch (i % 6) {
        case 0: v++; break;
        case 1: v ^= 3; break;
        case 2: memset(a, (int)v, 200); break;
        case 3: memcpy(b, a, 200); break;
        case 4: v += fib(5); break;
        case 5: v += (unsigned)(strlen("hello") + (unsigned)handled); break;
        }
#if defined(__x86_64__) || defined(__i386__)
        unsigned eax = 0, ebx, ecx = 0, edx;
        char *from = a, *to = b;
        unsigned long count = 64;
        __asm__ volatile("cld; rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
        count = 5;
        __asm__ volatile("1: loop 1b" : "+c"(count));
        __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
        __asm__ volatile("pause; pushf; pop %0" : "=r"(count));
#endif
        if (i % 7 == 0) syscall(SYS_getppid);
        if (i % 11 == 0) raise(SIGUSR1);
        if (i % 13 == 0) clock_gettime(CLOCK_MONOTONIC, &now);
    }
}
