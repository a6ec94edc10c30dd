/* A small target whose life is the thing under test: it ends, forks, execs, loses its leader.
 *
 * Arguments, done at the start:  nodump   prctl(PR_SET_DUMPABLE, 0)
 *                                big=MIB  touches so much memory, which takes long to take down
 *                                comm=X   names itself
 * It answers "ready ADDRESS" of a private page that holds the playground's pattern, then each line:
 *
 *   word A        answers the 8-byte word at A as hex
 *   leader        the leading thread ends, another one answers from now on
 *   thread        starts a thread; answers its id
 *   zombie N      forks a child that ends with status N, or by signal -N; answers its pid once it
 *                 is a zombie, and does not reap it
 *   share         forks a child that shares the memory (CLONE_VM) and waits; answers its pid
 *   shared A      the shared child answers the 8-byte word at A as hex
 *   exec P ARG..  runs another program
 *   exit N        ends
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char line[1 << 16];
static unsigned char *bytes;

static unsigned char pattern(uintptr_t address)
{
    return (unsigned char)(1 + (address * 7 + (address >> 12) * 13) % 255);
}

static void *wait_for_ever(void *tid)
{
    *(volatile long *)tid = syscall(SYS_gettid);
    for (;;) pause();
    return NULL;
}

static int to_shared[2], from_shared[2];

static int answer_words(void *unused)
{
    (void)unused;
    uintptr_t address;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(to_shared[0], &address, sizeof address) == sizeof address) {
        uint64_t word = *(volatile uint64_t *)address;
        if (write(from_shared[1], &word, sizeof word) != sizeof word) break;
    }
    _exit(0);
}

static int zombie(long status)
{
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0) {
        if (status < 0) {
            signal(-status, SIG_DFL);
            raise(-status);
        }
        _exit((int)status);
    }
    waitid(P_PID, pid, &info, WEXITED | WNOWAIT);
    return pid;
}

static void *serve(void *leader)
{
    static char stack[1 << 16] __attribute__((aligned(16)));
    if (leader) pthread_join(*(pthread_t *)leader, NULL);
    if (leader) printf("ok\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char *words[16] = {NULL};
        int n = 0;
        line[strcspn(line, "\n")] = 0;
        for (char *w = strtok(line, " "); w && n < 15; w = strtok(NULL, " ")) words[n++] = w;
        if (n == 0) continue;
        if (!strcmp(words[0], "word"))
            printf("%016lx\n", *(volatile uint64_t *)strtoul(words[1], NULL, 16));
        else if (!strcmp(words[0], "leader")) {
            static pthread_t self, other;
            self = pthread_self();
            pthread_create(&other, NULL, serve, &self);
            pthread_exit(NULL);
        }
        else if (!strcmp(words[0], "thread")) {
            static volatile long tids[64];
            static int used;
            pthread_t thread;
            volatile long *tid = &tids[used++ % 64];
            pthread_create(&thread, NULL, wait_for_ever, (void *)tid);
            while (*tid == 0) sched_yield();
            printf("%ld\n", *tid);
        }
        else if (!strcmp(words[0], "zombie")) printf("%d\n", zombie(atol(words[1])));
        else if (!strcmp(words[0], "share")) {
            if (pipe(to_shared) || pipe(from_shared)) return NULL;
            printf("%d\n", clone(answer_words, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL));
        }
        else if (!strcmp(words[0], "exec")) {
            execv(words[1], words + 1);
            printf("error exec\n");
        }
        else if (!strcmp(words[0], "exit")) exit(atoi(words[1]));
        else printf("error unknown\n");
        fflush(stdout);
    }
    exit(0);
}

int main(int argc, char **argv)
{
    long page = sysconf(_SC_PAGESIZE);
    for (int k = 1; k < argc; k++) {
        if (!strcmp(argv[k], "nodump")) prctl(PR_SET_DUMPABLE, 0);
        if (!strncmp(argv[k], "comm=", 5)) prctl(PR_SET_NAME, argv[k] + 5);
        if (!strncmp(argv[k], "big=", 4)) {
            size_t n = (size_t)atol(argv[k] + 4) << 20;
            char *big = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            madvise(big, n, MADV_NOHUGEPAGE);
            memset(big, 1, n);
        }
    }
    bytes = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long k = 0; k < page; k++) bytes[k] = pattern((uintptr_t)bytes + k);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    printf("ready %lx\n", (unsigned long)bytes);
    serve(NULL);
    return 0;
}
