/* A program with a child that shares its address space.
 *
 *   It answers "ready WORD" with the address of a word, then each line:
 *   clone         makes a child by clone(CLONE_VM); answers its pid
 *   vfork         the same by clone(CLONE_VM | CLONE_VFORK), in a thread that is kept by it
 *   end           the child ends and is reaped; answers 0
 *   exec          the child execs and waits in its new program; answers 0
 *   leave         this program execs, and the child goes on; answers "ready WORD" of the new one
 *   word          answers the word as hex
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PRISTINE 0x1122334455667788ull

static volatile uint64_t word = PRISTINE;
static int to_child[2], from_child[2];
static volatile int child;
static char *self;

static int in_child(void *tells)
{
    char what, up[16];
    int pid = getpid();
    if (tells && write(from_child[1], &pid, sizeof pid) != sizeof pid) _exit(3);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (read(to_child[0], &what, 1) != 1) _exit(3);
    if (what == 'x') _exit(0);
    snprintf(up, sizeof up, "%d", from_child[1]);
    execl(self, self, "sleeper", up, NULL);
    _exit(4);
}

static void *make(void *flags)
{
    char *stack = malloc(1 << 16);
    child = clone(in_child, stack + (1 << 16), (int)(intptr_t)flags | CLONE_VM | SIGCHLD, flags);
    /* The end of the thread would be the end of its child. */
    while (flags) pause();
    return NULL;
}

/* The child's own first act: the thread that made it does not come back from clone. */
static int make_vfork_child(void)
{
    pthread_t thread;
    int pid;
    if (pthread_create(&thread, NULL, make, (void *)(intptr_t)CLONE_VFORK)) return -1;
    return read(from_child[0], &pid, sizeof pid) == sizeof pid ? pid : -1;
}

int main(int argc, char **argv)
{
    char line[64], byte;
    self = argv[0];
    if (argc == 3 && !strcmp(argv[1], "sleeper")) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (write(atoi(argv[2]), "", 1) != 1) return 5;
        for (;;) pause();
    }
    if (pipe(to_child) || pipe(from_child)) return 2;
    printf("ready %lx\n", (unsigned long)&word);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "clone")) {
            make(0);
            printf("%d\n", child);
        } else if (!strcmp(line, "vfork")) {
            printf("%d\n", make_vfork_child());
        } else if (!strcmp(line, "end")) {
            if (write(to_child[1], "x", 1) != 1) return 6;
            while (waitpid(-1, NULL, 0) > 0) continue;
            printf("0\n");
        } else if (!strcmp(line, "exec")) {
            if (write(to_child[1], "e", 1) != 1 || read(from_child[0], &byte, 1) != 1) return 7;
            printf("0\n");
        } else if (!strcmp(line, "leave")) {
            execl(self, self, NULL);
            return 8;
        } else if (!strcmp(line, "word")) {
            printf("%lx\n", (unsigned long)word);
        }
        fflush(stdout);
    }
    return 0;
}
