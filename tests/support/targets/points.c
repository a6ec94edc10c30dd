/* A target for breakpoints and watchpoints. "ready VALUE SHARED" tells the addresses of two words. For
 * a line of input
 *   N          it calls store() N times, which writes a new value by one instruction; "done VALUE"
 *   threads N  4 threads are born, each adds 1 to the shared word N times, in bump(); "done SHARED"
 *   block      it blocks all signals; "blocked"
 *   masked     it calls store() with all signals blocked, and takes them once the shared word is not
 *              0; "done VALUE"
 *   handle     it handles all signals; "handled"
 *   usr1       it calls store() once and raises SIGUSR1, which it ignores, before that; "done VALUE"
 *   fork       a child stores once and ends; "forked STATUS"
 *   exec       it becomes itself
 *   forever    it stores and bumps without end, in 2 threads more, at the lowest priority
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

volatile uint64_t value;
volatile uint64_t shared;
static volatile unsigned char small[8];
static unsigned long rounds;

__attribute__((noinline)) void store(void)
{
    uint64_t next = value * 3 + 1;
#ifdef __x86_64__
    __asm__ volatile("movq %0, value(%%rip)\n\t.globl after_store\nafter_store:\n\tnop" ::"r"(next) : "memory");
#else
    value = next;
#endif
}

__attribute__((noinline)) void bump(void) { __atomic_add_fetch(&shared, 1, __ATOMIC_SEQ_CST); }

static void *work(void *unused)
{
    for (unsigned long i = 0; i < rounds; i++) bump();
    return unused;
}

static void on_signal(int signo) { (void)signo; small[0]++; }

int main(int argc, char **argv)
{
    char line[64];
    sigset_t all;
    pthread_t thread[4];
    (void)argc;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGUSR1, SIG_IGN);
    printf("ready %lx %lx\n", (unsigned long)&value, (unsigned long)&shared);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "threads ", 8) || !strcmp(line, "forever\n")) {
            rounds = line[0] == 't' ? strtoul(line + 8, NULL, 10) : ~0ul;
            int born = line[0] == 't' ? 4 : 2;
            if (born == 2 && nice(19) < 0) return 1;
            for (int i = 0; i < born; i++)
                if (pthread_create(&thread[i], NULL, work, NULL)) return 1;
            while (line[0] == 'f') store();
            for (int i = 0; i < born; i++) pthread_join(thread[i], NULL);
            printf("done %lx\n", (unsigned long)shared);
        } else if (!strcmp(line, "block\n")) {
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, NULL);
            puts("blocked");
        } else if (!strcmp(line, "masked\n")) {
            sigset_t before;
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            store();
            while (!shared) continue;
            pthread_sigmask(SIG_SETMASK, &before, NULL);
#ifdef __x86_64__
            __asm__ volatile("nop\n\t.globl taken\ntaken:\n\tnop");
#endif
            printf("done %lx\n", (unsigned long)value);
        } else if (!strcmp(line, "handle\n")) {
            for (int i = 1; i < 65; i++) signal(i, on_signal);
            puts("handled");
        } else if (!strcmp(line, "usr1\n")) {
            raise(SIGUSR1);
            store();
            printf("done %lx\n", (unsigned long)value);
        } else if (!strcmp(line, "fork\n")) {
            int status = -1;
            pid_t child = fork();
            if (!child) {
                store();
                _exit(0);
            }
            waitpid(child, &status, 0);
            printf("forked %x\n", status);
        } else if (!strcmp(line, "exec\n")) {
            execv("/proc/self/exe", argv);
        } else {
            for (unsigned long i = strtoul(line, NULL, 10); i; i--) store();
            printf("done %lx\n", (unsigned long)value);
        }
        fflush(stdout);
    }
    return 0;
}
