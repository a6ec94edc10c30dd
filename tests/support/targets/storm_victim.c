/* Targets of the storms. Each one checks its own registers, memory, calls and signals while it runs,
 * and counts what is wrong on a board that the storm reads.
 *
 *   storm_victim nursery BOARD_FD             starts targets, as commands on stdin tell it
 *   storm_victim run MODE COOKIE SLOT BOARD_FD   is one; the nursery forks these, an exec starts them
 *
 * The nursery first answers "ready COOKIE WORD": the addresses of two words, the same in each target.
 * Then it answers one line to each line:
 *   start MODE COOKIE SLOT            the pid of a new target
 *   swap PID MODE COOKIE SLOT HOW     kills PID and starts a target of that number ("fork" or
 *                                     "exec"); its pid, or -1 when the number does not come again
 *   look PID                          "alive", "exited N" or "signal N"
 *   end PID                           kills it; the status as with look
 *
 * Modes: spin, blocked, traps (one thread), signals, mixed (eight threads).
 *
 * Each thread keeps COOKIE << 32 in r15, which no code here uses. A debugger that knows the cookie may
 * set the lower 31 bits, and may add to the word. Bit 31 marks a value that has to be refused.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
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
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

register unsigned long tagged asm("r15");

#define BOARD_LEN (1 << 20)
#define SLOT_WORDS 64
#define MAX_THREADS 8
#define REFUSED (1ul << 31)
#define RING (SIGRTMIN_KERNEL + 3)
#define SIGRTMIN_KERNEL 32

/* The words of a slot; scripts/soaking/board.py has the same names. */
enum {
    COOKIE, NEXT_COOKIE, EXEC_BY, QUIET, THREADS, WRONG_SUM, WRONG_REGISTER, LAST_REGISTER,
    WRONG_CALL, LAST_CALL, WRONG_COUNT, FOREIGN_TRAP, LAST_TRAP, REFUSED_TOOK, OWN, WORD, SENT, GOT,
    TRAPS, BEATS = 24
};

static volatile uint64_t cookie;
static volatile uint64_t word;
static volatile uint64_t *board, *slot;
static const char *mode, *cookie_text, *slot_text, *fd_text;
static uint64_t expected[MAX_THREADS];
static volatile int tids[MAX_THREADS];
static volatile int nr_threads, nr_begun;
static __thread volatile uint64_t traps, sent_traps, usr1;

static void add(int at, uint64_t n)
{
    __atomic_fetch_add(&slot[at], n, __ATOMIC_SEQ_CST);
}

static long raw(long nr, long a, long b, long c, long d)
{
    long rc;
    register long r10 asm("r10") = d;
    asm volatile("syscall" : "=a"(rc) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
                 : "rcx", "r11", "memory");
    return rc;
}

static uint64_t now(void)
{
    struct timespec t;
    raw(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&t, 0, 0);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

__attribute__((noinline)) static uint64_t block(uint64_t x)
{
    double d = 1.0;
    uint64_t bits;
    for (int k = 0; k < 4000; k++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        x ^= x >> 17;
        d = d * 1.0000001 + (double)(x & 7);
    }
    memcpy(&bits, &d, sizeof bits);
    return x ^ bits;
}

static void on_trap(int signo, siginfo_t *info, void *context)
{
    (void)signo, (void)context;
    if (info->si_code == SI_KERNEL) traps++;
    else if (info->si_code == SI_TKILL) sent_traps++;
    else {
        slot[LAST_TRAP] = (uint64_t)info->si_code;
        add(FOREIGN_TRAP, 1);
    }
}

static void on_usr1(int signo)
{
    (void)signo;
    usr1++;
}

static void on_ring(int signo, siginfo_t *info, void *context)
{
    (void)signo, (void)context;
    if ((uint64_t)info->si_value.sival_ptr == cookie) add(GOT, 1);
}

static void wrong_call(int which, long rc, uint64_t took)
{
    slot[LAST_CALL] = (uint64_t)which << 56 | (took / 1000 & 0xffffff) << 32 | (rc & 0xffffffff);
    add(WRONG_CALL, 1);
}

/* Calls that a hold or a step interrupts, and that the kernel restarts. */
static void block_in_a_call(int timer, unsigned turn)
{
    static int zero;
    uint64_t ns = turn % 16 == 15 ? 60000000 : 1000000ull * (1 + turn % 5), got = 0, begun = now();
    struct timespec t = {.tv_nsec = ns};
    struct itimerspec once = {.it_value = t};
    long rc, good = 0;
    switch (turn % 4) {
    case 0: rc = raw(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&t, 0); break;
    case 1: rc = raw(SYS_poll, 0, 0, ns / 1000000, 0); break;
    case 2:
        rc = raw(SYS_futex, (long)&zero, FUTEX_WAIT_PRIVATE, 0, (long)&t);
        good = -ETIMEDOUT;
        break;
    default:
        raw(SYS_timerfd_settime, timer, 0, (long)&once, 0);
        rc = raw(SYS_read, timer, (long)&got, sizeof got, 0);
        good = sizeof got;
    }
    uint64_t took = now() - begun;
    if (rc != good || took < ns) wrong_call(turn % 4, rc, took);
}

static void trap_itself(int tid)
{
    uint64_t before = traps, before_sent = sent_traps;
    asm volatile("int3" ::: "memory");
    add(TRAPS, 1);
    if (traps != before + 1) add(WRONG_COUNT, 1);
    raw(SYS_tgkill, getpid(), tid, SIGTRAP, 0);
    if (sent_traps != before_sent + 1) add(WRONG_COUNT, 1);
}

static void signal_itself_and_a_sibling(int k, int tid)
{
    uint64_t before = usr1;
    siginfo_t info = {.si_signo = RING, .si_code = SI_QUEUE};
    raw(SYS_tgkill, getpid(), tid, SIGUSR1, 0);
    if (usr1 != before + 1) add(WRONG_COUNT, 1);
    if (slot[QUIET] || slot[SENT] - slot[GOT] > 64) return;
    info.si_value.sival_ptr = (void *)cookie;
    add(SENT, 1);
    /* The next one of those that take signals: in the mode mixed each fourth does. */
    int step = !strcmp(mode, "mixed") ? 4 : 1;
    long rc = raw(SYS_rt_tgsigqueueinfo, getpid(), tids[(k + step) % nr_threads], RING, (long)&info);
    if (rc) {
        add(SENT, (uint64_t)-1);
        if (rc != -EAGAIN) wrong_call(8, rc, 0);
    }
}

static void exec_again(void)
{
    static char text[24];
    uint64_t next = slot[NEXT_COOKIE], all = ~0ull;
    char *at = text + sizeof text - 1;
    do *--at = '0' + next % 10; while (next /= 10);
    const char *argv[] = {"storm_victim", "run", mode, at, slot_text, fd_text, NULL};
    raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, 0, 8);
    raw(SYS_execve, (long)"/proc/self/exe", (long)argv, (long)environ, 0);
    raw(SYS_exit_group, 97, 0, 0, 0);
}

/* What thread k does in its mode: 's'pin, 'b'lock, 't'raps or s'i'gnals. */
static char kind_of(int k)
{
    if (!strcmp(mode, "mixed")) return "sbti"[k % 4];
    return !strcmp(mode, "signals") ? 'i' : mode[0];
}

static void *work(void *argument)
{
    int k = (int)(intptr_t)argument, tid = tids[k] = gettid();
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    char kind = kind_of(k);
    uint64_t next = 0, none = 0;
    tagged = cookie << 32;
    __atomic_fetch_add(&nr_begun, 1, __ATOMIC_SEQ_CST);
    while (nr_begun < nr_threads) sched_yield();
    raw(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, 8);
    if (k == 0) slot[COOKIE] = cookie;
    for (unsigned turn = 0;; turn++) {
        if (block(k + 1) != expected[k]) add(WRONG_SUM, 1);
        uint64_t seen = tagged;
        if (seen >> 32 != cookie || seen & REFUSED) {
            slot[LAST_REGISTER] = seen;
            add(seen >> 32 == cookie ? REFUSED_TOOK : WRONG_REGISTER, 1);
            tagged = cookie << 32;
        }
        if (!slot[QUIET]) {
            __atomic_fetch_add(&word, 1, __ATOMIC_SEQ_CST);
            add(OWN, 1);
        }
        slot[WORD] = word;
        if (kind == 'b') block_in_a_call(timer, turn);
        if (kind == 't') trap_itself(tid);
        if (kind == 'i') signal_itself_and_a_sibling(k, tid);
        slot[BEATS + k]++;
        if ((next = slot[NEXT_COOKIE]) && slot[EXEC_BY] % nr_threads == (uint64_t)k) exec_again();
    }
    return NULL;
}

static void run(uint64_t mine, const char *fd)
{
    struct sigaction action = {.sa_flags = SA_RESTART | SA_SIGINFO};
    pthread_t thread;
    sigset_t all;
    slot = board + SLOT_WORDS * atoi(slot_text);
    fd_text = fd;
    /* What is wrong stays counted across an exec. */
    static const int anew[] = {COOKIE, NEXT_COOKIE, OWN, WORD, SENT, GOT};
    for (unsigned k = 0; k < sizeof anew / sizeof *anew; k++) slot[anew[k]] = 0;
    for (int k = BEATS; k < SLOT_WORDS; k++) slot[k] = 0;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    if (!strcmp(mode, "traps") || !strcmp(mode, "mixed")) {
        action.sa_sigaction = on_trap;
        sigaction(SIGTRAP, &action, NULL);
    }
    action.sa_sigaction = on_ring;
    sigaction(RING, &action, NULL);
    signal(SIGUSR1, on_usr1);
    nr_threads = !strcmp(mode, "signals") || !strcmp(mode, "mixed") ? MAX_THREADS : 1;
    slot[THREADS] = nr_threads;
    for (int k = 0; k < nr_threads; k++) expected[k] = block(k + 1);
    word = 0;
    nr_begun = 0;
    cookie = mine;
    for (int k = 1; k < nr_threads; k++)
        if (pthread_create(&thread, NULL, work, (void *)(intptr_t)k)) _exit(98);
    work(0);
}

/* The nursery */

static char words[5][32];

static pid_t start(pid_t wanted, const char *how)
{
    struct clone_args args;
    pid_t pid;
    for (int tries = 0;; tries++) {
        memset(&args, 0, sizeof args);
        args.exit_signal = SIGCHLD;
        if (wanted) {
            args.set_tid = (uintptr_t)&wanted;
            args.set_tid_size = 1;
        }
        pid = syscall(SYS_clone3, &args, sizeof args);
        if (pid >= 0 || errno != EEXIST || tries > 10000) break;
        sched_yield();
    }
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(0);
    mode = words[0];
    cookie_text = words[1];
    slot_text = words[2];
    if (!strcmp(how, "exec"))
        execl("/proc/self/exe", "storm_victim", "run", mode, cookie_text, slot_text, fd_text, NULL);
    else
        run(strtoull(cookie_text, NULL, 10), fd_text);
    _exit(99);
}

static const char *end_of(pid_t pid, int flags)
{
    static char text[32];
    int status;
    pid_t got = waitpid(pid, &status, flags | __WALL);
    if (got == 0) return "alive";
    if (got < 0) return "exited 1000";
    if (WIFSIGNALED(status)) snprintf(text, sizeof text, "signal %d", WTERMSIG(status));
    else snprintf(text, sizeof text, "exited %d", WEXITSTATUS(status));
    return text;
}

static void nurse(void)
{
    char line[128], how[16];
    int pid;
    printf("ready %lx %lx\n", (unsigned long)&cookie, (unsigned long)&word);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "start %31s %31s %31s", words[0], words[1], words[2]) == 3)
            printf("%d\n", start(0, "fork"));
        else if (sscanf(line, "swap %d %31s %31s %31s %15s", &pid, words[0], words[1], words[2],
                        how) == 5) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, __WALL);
            printf("%d\n", start(pid, how));
        } else if (sscanf(line, "look %d", &pid) == 1)
            puts(end_of(pid, WNOHANG));
        else if (sscanf(line, "end %d", &pid) == 1) {
            kill(pid, SIGKILL);
            puts(end_of(pid, 0));
        } else
            puts("what?");
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    fd_text = argv[argc - 1];
    board = mmap(NULL, BOARD_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(fd_text), 0);
    if (board == MAP_FAILED) return 1;
    if (argc == 3) nurse();
    else if (argc == 6) {
        mode = argv[2];
        cookie_text = argv[3];
        slot_text = argv[4];
        run(strtoull(argv[3], NULL, 10), argv[5]);
    }
    return 0;
}
