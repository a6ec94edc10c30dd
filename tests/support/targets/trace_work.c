/* A target that works, and counts what it does in shared words that the test reads.
 *
 *   trace_work MODE FD N
 *
 * FD is a memfd of one page or more of 64-bit words: [0] ticks, [1] born, [2] finished,
 * [3] set by the test to end a storm, [4] tasks that have started, [5] a stage, [6] its errors,
 * [16 + i] what thread i counts.
 *
 * MODE:  spin      N threads count without a pause
 *        tick      N threads count, with 200 microseconds of sleep between
 *        sleep     N threads wait for ever
 *        mixed     of sixteen threads one ticks, each millisecond; the others wait for ever
 *        clones    N threads create threads without end; each ticks and ends
 *        children  processes are made in turn by fork, vfork, clone() without a signal, clone()
 *                  with one that is not SIGCHLD, and posix_spawn; [16 + i] born, [32 + i] ended well
 *        raws      the same, but by clone() without a signal alone
 *        orphan    N threads tick; the leader ends first
 *        leaves    N threads tick; the leader ends when [3] is set
 *        vfork     a child by vfork waits for a byte of standard input; its parent waits for it
 *        refork    N threads tick; a second process in the same address space ticks too: a child
 *        lost      the same; it is nobody's child, because its parent between has ended
 *        sibling   the same; it was made with CLONE_PARENT
 *        seven     ends with status 7
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t *words;
static uint64_t private_word;
extern char **environ;

static void add(int at, uint64_t n) { __atomic_add_fetch(&words[at], n, __ATOMIC_SEQ_CST); }

static void nap(long us)
{
    struct timespec time = {0, us * 1000};
    nanosleep(&time, NULL);
}

static void *spin(void *at)
{
    add(4, 1);
    for (;;) words[(long)at]++;
    return NULL;
}

static void *tick(void *at)
{
    add(4, 1);
    for (;;) {
        words[(long)at]++;
        nap(200);
    }
    return NULL;
}

static void *tick_slowly(void *at)
{
    add(4, 1);
    for (;;) {
        words[(long)at]++;
        nap(1000);
    }
    return NULL;
}

static void *wait_for_ever(void *at)
{
    (void)at;
    add(4, 1);
    for (;;) pause();
    return NULL;
}

static void *newborn(void *at)
{
    (void)at;
    add(0, 1);
    add(2, 1);
    return NULL;
}

static void *create(void *at)
{
    (void)at;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 65536);
    add(4, 1);
    while (!words[3]) {
        pthread_t thread;
        if (pthread_create(&thread, &attr, newborn, NULL) == 0)
            add(1, 1);
        else
            sched_yield();
        add(0, 1);
    }
    for (;;) pause();
    return NULL;
}

static int start(void *(*work)(void *), long at)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 65536);
    pthread_t thread;
    return pthread_create(&thread, &attr, work, (void *)at);
}

static void start_all(void *(*work)(void *), int n, int first)
{
    for (int i = first; i < n; i++)
        if (start(work, 16 + i)) exit(2);
}

static char stacks[3][65536] __attribute__((aligned(16)));

static int child_of_clone(void *argument)
{
    (void)argument;
    return 7;
}

static void reap(pid_t pid, int kind)
{
    int status = -1;
    if (pid < 0) { words[6] = errno; return; }
    while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR) ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 7) add(32 + kind, 1);
    else words[6] = 1000 + status;
}

static void make_children(int only_raw)
{
    char *seven[] = {"trace_work", "seven", "0", "0", NULL};
    add(4, 1);
    while (!words[3]) {
        pid_t pid;
        if (only_raw) {
            add(18, 1);
            reap(clone(child_of_clone, stacks[0] + 65536, 0, NULL), 2);
            continue;
        }
        add(16, 1);
        if ((pid = fork()) == 0) _exit(7);
        reap(pid, 0);
        add(17, 1);
        if ((pid = vfork()) == 0) _exit(7);
        reap(pid, 1);
        add(18, 1);
        reap(clone(child_of_clone, stacks[0] + 65536, 0, NULL), 2);
        add(19, 1);
        reap(clone(child_of_clone, stacks[1] + 65536, SIGURG, NULL), 3);
        if (words[16] % 8 == 1) {
            add(20, 1);
            if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, seven, environ)) pid = -1;
            reap(pid, 4);
        }
        add(0, 1);
    }
}

static int peer(void *argument)
{
    if (!argument) prctl(PR_SET_PDEATHSIG, SIGKILL);
    add(4, 1);
    for (;;) {
        words[1]++;
        nap(200);
    }
    return 0;
}

static int between(void *argument)
{
    (void)argument;
    return clone(peer, stacks[1] + 65536, CLONE_VM, stacks) < 0;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* none outlives a test that was killed */
    if (argc < 4) return 2;
    const char *mode = argv[1];
    int fd = atoi(argv[2]), n = atoi(argv[3]);
    if (!strcmp(mode, "seven")) return 7;
    words = mmap(NULL, 4096 * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED) return 3;
    printf("ready %lx\n", (unsigned long)&private_word);
    fflush(stdout);

    if (!strcmp(mode, "spin")) { start_all(spin, n, 1); spin((void *)16); }
    if (!strcmp(mode, "tick")) { start_all(tick, n, 1); tick((void *)16); }
    if (!strcmp(mode, "sleep")) { start_all(wait_for_ever, n, 1); wait_for_ever(NULL); }
    if (!strcmp(mode, "mixed")) {
        for (int i = 1; i < n; i++)
            if (start(i % 16 ? wait_for_ever : tick_slowly, 16 + i)) return 2;
        tick_slowly((void *)16);
    }
    if (!strcmp(mode, "clones")) { start_all(create, n, 1); create(NULL); }
    if (!strcmp(mode, "children")) { make_children(0); for (;;) pause(); }
    if (!strcmp(mode, "raws")) { make_children(1); for (;;) pause(); }
    if (!strcmp(mode, "orphan")) { start_all(tick, n + 1, 1); pthread_exit(NULL); }
    if (!strcmp(mode, "leaves")) {
        start_all(tick, n + 1, 1);
        while (!words[3]) ;
        words[5] = 1;
        pthread_exit(NULL);
    }
    if (!strcmp(mode, "vfork")) {
        add(4, 1);
        if (vfork() == 0) {
            char byte;
            words[5] = getpid();
            _exit(read(0, &byte, 1) != 1);
        }
        tick((void *)16);
    }
    if (!strcmp(mode, "refork")) {
        if (clone(peer, stacks[0] + 65536, CLONE_VM, NULL) < 0) return 4;
        start_all(tick, n, 1);
        tick((void *)16);
    }
    if (!strcmp(mode, "sibling")) {
        pid_t pid = clone(peer, stacks[0] + 65536, CLONE_VM | CLONE_PARENT, NULL);
        if (pid < 0) return 4;
        words[5] = pid;
        tick((void *)16);
    }
    if (!strcmp(mode, "lost")) {
        pid_t pid = clone(between, stacks[0] + 65536, CLONE_VM, NULL);
        if (pid < 0 || waitpid(pid, NULL, __WALL) < 0) return 4;
        tick((void *)16);
    }
    return 5;
}
