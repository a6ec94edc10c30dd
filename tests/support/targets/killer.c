/* Ends processes at instants that are not ours: for each line "PID NANOSECONDS SIGNAL" it spins that
 * long, sends the signal, and answers "sent". */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <time.h>

int main(void)
{
    long pid, ns;
    int number;
    while (scanf("%ld %ld %d", &pid, &ns, &number) == 3) {
        struct timespec begin, now;
        clock_gettime(CLOCK_MONOTONIC, &begin);
        do clock_gettime(CLOCK_MONOTONIC, &now);
        while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < ns);
        kill((pid_t)pid, number);
        printf("sent\n");
        fflush(stdout);
    }
    return 0;
}
