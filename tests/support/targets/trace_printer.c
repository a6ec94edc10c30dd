/* Prints what a program is given by whoever starts it: everything but its pid.
 *
 *   trace_printer [STATUS]
 *
 * It prints arguments, environment in order, folder, umask, open descriptors with their
 * flags, signals that are ignored or blocked, limits, and whether it leads a session of its own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
    /* Descriptors first: standard output's buffer opens none. */
    char name[64], to[4096];
    for (int fd = 0; fd < 1024; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (flags < 0) continue;
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(name, to, sizeof to - 1);
        to[n < 0 ? 0 : n] = 0;
        if (!strncmp(to, "pipe:", 5)) strcpy(to, "pipe");
        if (!strncmp(to, "socket:", 7)) strcpy(to, "socket");
        printf("fd %d %s cloexec %d flags %o\n", fd, to, flags, fcntl(fd, F_GETFL));
    }
    for (int k = 0; k < argc; k++) printf("arg %s\n", argv[k]);
    for (char **variable = environ; *variable; variable++) printf("env %s\n", *variable);
    printf("cwd %s\n", getcwd(to, sizeof to));
    mode_t mask = umask(0);
    printf("umask %o\n", mask);
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    for (int signo = 1; signo < 65; signo++) {
        struct sigaction action;
        if (sigaction(signo, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
            printf("signal %d %s\n", signo, action.sa_handler == SIG_IGN ? "ignored" : "handled");
        if (sigismember(&blocked, signo) == 1) printf("signal %d blocked\n", signo);
    }
    stack_t stack;
    sigaltstack(NULL, &stack);
    printf("altstack %d\n", stack.ss_flags);
    for (int what = 0; what < RLIM_NLIMITS; what++) {
        struct rlimit limit;
        if (getrlimit(what, &limit) == 0)
            printf("limit %d %lx %lx\n", what, (long)limit.rlim_cur, (long)limit.rlim_max);
    }
    int death = -1;
    prctl(PR_GET_PDEATHSIG, &death);
    printf("pdeathsig %d dumpable %d nonewprivs %d slack %d\n", death, prctl(PR_GET_DUMPABLE),
           prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_TIMERSLACK));
    cpu_set_t cpus;
    sched_getaffinity(0, sizeof cpus, &cpus);
    printf("cpus %d nice %d policy %d\n", CPU_COUNT(&cpus), getpriority(PRIO_PROCESS, 0),
           sched_getscheduler(0));
    printf("leads a session %d, a group %d\n", getsid(0) == getpid(), getpgrp() == getpid());
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "cat")) {
        int c;
        while ((c = getchar()) != EOF) putchar(c);
        fprintf(stderr, "to stderr\n");
    }
    return argc > 2 ? atoi(argv[2]) : 0;
}
