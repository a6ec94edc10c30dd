/* A target whose threads touch one word by different functions, and count how often.
 *
 * 8 threads live long; 2 of them write, one reads. The main thread has others born and ended all the
 * while, each of which writes once. For a line of input
 *   N     every long-lived writer writes N times, and one thread is born for each 10 of them; then it
 *         answers "increments stores births reads", counted since the start
 *   call  it calls called(1, 2, 3, 4, 5, 6) once and answers "called"
 *   fork  a child writes 100 times and ends; it answers "forked"
 *   exec  it becomes `sleep 1000`
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

volatile uint64_t touched;
static volatile uint64_t other;
static uint64_t increments, stores, births, reads;
static volatile long rounds;
static pthread_barrier_t begin, done;

static void count(uint64_t *counter) { __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST); }

__attribute__((noinline)) void increment(void) { touched++; count(&increments); }
__attribute__((noinline)) void store(uint64_t value) { touched = value; count(&stores); }
__attribute__((noinline)) uint64_t load(void) { count(&reads); return touched; }
__attribute__((noinline)) long called(long a, long b, long c, long d, long e, long f)
{
    other += (uint64_t)(a + b + c + d + e + f);
    return a;
}

static void *work(void *at)
{
    long number = (long)at;
    for (;;) {
        pthread_barrier_wait(&begin);
        for (long i = 0; i < rounds; i++) {
            if (number == 0) increment();
            else if (number == 1) store((uint64_t)i);
            else if (number == 2) load();
            else other++;
        }
        pthread_barrier_wait(&done);
    }
    return NULL;
}

static void *born(void *unused)
{
    (void)unused;
    increment();
    count(&births);
    return NULL;
}

int main(void)
{
    char line[32];
    pthread_barrier_init(&begin, NULL, 9);
    pthread_barrier_init(&done, NULL, 9);
    for (long k = 0; k < 8; k++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)k)) return 1;
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "call\n")) {
            called(1, 2, 3, 4, 5, 6);
            puts("called");
        } else if (!strcmp(line, "fork\n")) {
            pid_t child = fork();
            if (child == 0) {
                for (int i = 0; i < 100; i++) touched++;
                _exit(0);
            }
            waitpid(child, NULL, 0);
            puts("forked");
        } else if (!strcmp(line, "exec\n")) {
            execlp("sleep", "sleep", "1000", NULL);
        } else {
            rounds = atol(line);
            pthread_barrier_wait(&begin);
            for (long k = 0; k < rounds / 10; k++) {
                pthread_t thread;
                if (pthread_create(&thread, NULL, born, NULL)) return 1;
                pthread_join(thread, NULL);
            }
            pthread_barrier_wait(&done);
            printf("%lu %lu %lu %lu\n", (unsigned long)increments, (unsigned long)stores,
                   (unsigned long)births, (unsigned long)reads);
        }
        fflush(stdout);
    }
    return 0;
}
