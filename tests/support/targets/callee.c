/* A target whose functions a tool calls, while it waits in a way that shows any harm. "ready WORD".
 * MODE sleep: it sleeps for 2 s in clock_nanosleep and tells whether that was cut short; read: it waits for a
 * line; spin: it keeps a checksum in registers and in its red zone, and tells whether it stayed right. */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

volatile uint64_t word = 7;

long add(long a, long b, long c, long d, long e, long f)
{
    char line[8] = "called";
    word += 1;
    return a + b * 10 + c * 100 + d * 1000 + e * 10000 + f * 100000 + (line[0] - 'c') + (getppid() < 0);
}

long crash(void) { return *(volatile long *)16; }
long wait_for_ever(void) { for (;;) pause(); }
double half(double x) { return x / 2; }

static uint64_t leaf(uint64_t n)
{
    volatile uint64_t red[12];  /* a leaf keeps them below its stack pointer */
    uint64_t sum = 0;
    for (int i = 0; i < 12; i++) red[i] = n + (uint64_t)i;
    for (int i = 0; i < 12; i++) sum += red[i];
    return sum;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "read";
    char line[32];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    printf("ready %lx\n", (unsigned long)&word);
    fflush(stdout);
    if (!strcmp(mode, "sleep")) {
        struct timespec two = {2, 0};
        int code = clock_nanosleep(CLOCK_MONOTONIC, 0, &two, NULL);
        printf("slept %d\n", code);
    } else if (!strcmp(mode, "spin")) {
        volatile double x = 1;
        uint64_t wrong = 0;
        for (uint64_t n = 0; word < 1000; n++) {
            wrong += leaf(n) != 12 * n + 66;
            x = half(x) * 2;
            wrong += x != 1;
        }
        printf("wrong %lu\n", (unsigned long)wrong);
    } else {
        while (fgets(line, sizeof line, stdin)) printf("read %s", line), fflush(stdout);
    }
    fflush(stdout);
    return 0;
}
