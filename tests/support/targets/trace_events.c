// A target of tests of cont and step: threads that signal themselves, trap, or block.
// trace_events MODE THREADS; says "ready COUNTER" and, when told to end, "end COUNTER".
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile unsigned long handled;
static volatile int go_on = 1;

static void handler(int signo)
{
    (void)signo;
    __sync_fetch_and_add(&handled, 1);
}

static void *send_to_self(void *unused)
{
    while (go_on) {
        syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
        usleep(500);
    }
    return unused;
}

static void *trap(void *unused)
{
    usleep(1000);
    __builtin_trap();
    return unused;
}

static void *spin(void *unused)
{
    volatile unsigned long n = 0;
    while (go_on)
        n++;
    return unused;
}

static void *wait_here(void *unused)
{
    for (;;)
        pause();
    return unused;
}

int main(int argc, char **argv)
{
    char line[16];
    pthread_t thread;
    pthread_attr_t attr;
    const char *mode = argc > 1 ? argv[1] : "";
    int n = argc > 2 ? atoi(argv[2]) : 1;
    void *(*work)(void *) = wait_here;
    if (!strcmp(mode, "signals"))
        work = send_to_self;
    else if (!strcmp(mode, "traps"))
        work = trap;
    else if (!strcmp(mode, "spins"))
        work = spin;
    signal(SIGUSR1, handler);
    if (!strcmp(mode, "ignores"))
        signal(SIGTRAP, SIG_IGN);
    else if (!strcmp(mode, "handles"))
        signal(SIGTRAP, handler);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 65536);
    printf("ready %lx\n", (unsigned long)&handled);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 1;
    for (int i = 0; i < n; i++)
        if (pthread_create(&thread, &attr, work, 0))
            return 2;
    puts("started");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 3;
    go_on = 0;
    printf("end %lx\n", handled);
    fflush(stdout);
    return 0;
}
