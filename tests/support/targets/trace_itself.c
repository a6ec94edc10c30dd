/* A target that watches itself: whether what is its own changes while it is stopped and let go.
 *
 *   trace_itself      "ready MAIN KEEPER WAITER ALARMED", then one answer a line of input:
 *   "TURNS HARM ALARMS FIRED EXPECTED INTERVAL VIRTUAL MASK"
 *
 * TURNS of a thread that keeps known values in its registers, HARM that it found there; ALARMS of a
 * timer of 3 ms; how often a timerfd of 5 ms FIRED, and should have; the interval of the timer in us;
 * the seconds left of one that stands still; the mask of blocked signals.
 * Each thread has a mask of its own, and the main thread a signal pending.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t turns, harm, alarms;
static volatile int tids[3];
static __thread volatile uint64_t own = 0x0123456789abcdef;

static void alarmed(int signo) { (void)signo; alarms++; }

static void block(int first)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaddset(&set, first);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

#define KEPT(n) (0x1122334455660000ul + (n))

/* Loads registers with known values, lets time pass, and counts those that have another one then. */
static void keep_once(void)
{
#if defined(__x86_64__)
    uint64_t got[27];
    uint64_t base = KEPT(0);
    __asm__ volatile(
        "mov %[base], %%rbx\n lea 1(%%rbx), %%rdx\n lea 2(%%rbx), %%rsi\n lea 3(%%rbx), %%rdi\n"
        "lea 4(%%rbx), %%r8\n lea 5(%%rbx), %%r9\n lea 6(%%rbx), %%r10\n lea 7(%%rbx), %%r11\n"
        "lea 8(%%rbx), %%r12\n lea 9(%%rbx), %%r13\n lea 10(%%rbx), %%r14\n"
        "movq %%rbx, %%xmm0\n movq %%rdx, %%xmm1\n movq %%rsi, %%xmm2\n movq %%rdi, %%xmm3\n"
        "movq %%r8, %%xmm4\n movq %%r9, %%xmm5\n movq %%r10, %%xmm6\n movq %%r11, %%xmm7\n"
        "movq %%r12, %%xmm8\n movq %%r13, %%xmm9\n movq %%r14, %%xmm10\n movq %%rbx, %%xmm11\n"
        "movq %%rdx, %%xmm12\n movq %%rsi, %%xmm13\n movq %%rdi, %%xmm14\n movq %%r8, %%xmm15\n"
        "mov $300000, %%ecx\n 1: dec %%rcx\n jnz 1b\n"
        "mov %%rbx, 0(%%rax)\n mov %%rdx, 8(%%rax)\n mov %%rsi, 16(%%rax)\n mov %%rdi, 24(%%rax)\n"
        "mov %%r8, 32(%%rax)\n mov %%r9, 40(%%rax)\n mov %%r10, 48(%%rax)\n mov %%r11, 56(%%rax)\n"
        "mov %%r12, 64(%%rax)\n mov %%r13, 72(%%rax)\n mov %%r14, 80(%%rax)\n"
        "movq %%xmm0, 88(%%rax)\n movq %%xmm1, 96(%%rax)\n movq %%xmm2, 104(%%rax)\n"
        "movq %%xmm3, 112(%%rax)\n movq %%xmm4, 120(%%rax)\n movq %%xmm5, 128(%%rax)\n"
        "movq %%xmm6, 136(%%rax)\n movq %%xmm7, 144(%%rax)\n movq %%xmm8, 152(%%rax)\n"
        "movq %%xmm9, 160(%%rax)\n movq %%xmm10, 168(%%rax)\n movq %%xmm11, 176(%%rax)\n"
        "movq %%xmm12, 184(%%rax)\n movq %%xmm13, 192(%%rax)\n movq %%xmm14, 200(%%rax)\n"
        "movq %%xmm15, 208(%%rax)\n"
        :
        : "a"(got), [base] "r"(base)
        : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "xmm0",
          "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "xmm14", "xmm15", "memory", "cc");
    for (int k = 0; k < 27; k++) harm += got[k] != KEPT(k < 22 ? k % 11 : k - 22);
#else
    for (volatile int k = 0; k < 300000; k++) ;
#endif
    harm += own != 0x0123456789abcdef; /* by the register of the thread's own memory */
    turns++;
}

static void *keep(void *argument)
{
    block(SIGHUP);
    tids[0] = syscall(SYS_gettid);
    for (;;) keep_once();
    return argument;
}

static void *wait_for_ever(void *argument)
{
    block(SIGWINCH);
    tids[1] = syscall(SYS_gettid);
    for (;;) pause();
    return argument;
}

static void *take_alarms(void *argument)
{
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    tids[2] = syscall(SYS_gettid);
    for (;;) pause();
    return argument;
}

int main(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* none outlives a test that was killed */
    pthread_t thread;
    struct timespec begin, now;
    char line[64];
    signal(SIGALRM, alarmed);
    block(SIGUSR2);
    raise(SIGUSR2);
    pthread_create(&thread, NULL, keep, NULL);
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    pthread_create(&thread, NULL, take_alarms, NULL);
    while (!tids[0] || !tids[1] || !tids[2]) usleep(100);

    struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{7, 0}, {100000, 0}}, found;
    struct itimerspec each = {{0, 5000000}, {0, 5000000}}, late = {{9, 0}, {200000, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    setitimer(ITIMER_VIRTUAL, &never, NULL);
    timer_t timer;
    struct sigevent silent = {.sigev_notify = SIGEV_NONE};
    timer_create(CLOCK_MONOTONIC, &silent, &timer);
    timer_settime(timer, 0, &late, NULL);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    timerfd_settime(fd, 0, &each, NULL);

    printf("ready %x %x %x %x\n", getpid(), tids[0], tids[1], tids[2]);
    fflush(stdout);
    uint64_t fired = 0;
    while (read(0, line, sizeof line) > 0) {
        uint64_t more = 0, mask = 0;
        sigset_t set;
        if (read(fd, &more, 8) == 8) fired += more;
        clock_gettime(CLOCK_MONOTONIC, &now);
        uint64_t ms = (now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000;
        getitimer(ITIMER_REAL, &found);
        long interval = found.it_interval.tv_usec;
        getitimer(ITIMER_VIRTUAL, &found);
        pthread_sigmask(0, NULL, &set);
        memcpy(&mask, &set, 8);
        printf("%lu %lu %lu %lu %lu %ld %ld %lu\n", turns, harm, alarms, fired, ms / 5, interval,
               found.it_interval.tv_sec, mask);
        fflush(stdout);
    }
    return 0;
}
