/* A target that writes a word at a known rate of its own CPU time, in a function, and times itself.
 *
 * "ready ADDRESS FUNCTION"; for a line "WRITES SPINS" it calls the function WRITES times with SPINS
 * rounds of work before each call, and answers with the nanoseconds of CPU time that this took. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

volatile uint64_t observed;

__attribute__((noinline)) void observe(uint64_t value) { observed = value; }

static uint64_t cpu_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

int main(void)
{
    unsigned long writes, spins;
    printf("ready %lx %lx\n", (unsigned long)&observed, (unsigned long)observe);
    fflush(stdout);
    while (scanf("%lu %lu", &writes, &spins) == 2) {
        uint64_t begun = cpu_ns();
        for (unsigned long k = 0; k < writes; k++) {
            for (unsigned long n = 0; n < spins; n++) __asm__ volatile("" ::: "memory");
            observe(k);
        }
        printf("%lu\n", (unsigned long)(cpu_ns() - begun));
        fflush(stdout);
    }
    return 0;
}
