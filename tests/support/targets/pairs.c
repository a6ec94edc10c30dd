/* Threads that each count two words up, one far behind the other in memory, in step.
 *
 *   pairs THREADS
 *
 * It answers "ready A B": thread k counts the word at A + 64 k and then the one at B + 64 k, so
 * at each instant the first is as far as the second or one ahead. Between them are 8 MiB, all in
 * use.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LEN (8L << 20)

static char *base;

static void *count(void *argument)
{
    long k = (long)argument;
    uint64_t *first = (uint64_t *)(base + 64 * k), *second = (uint64_t *)(base + LEN - 4096 + 64 * k);
    for (uint64_t n = 1;; n++) {
        __atomic_store_n(first, n, __ATOMIC_SEQ_CST);
        __atomic_store_n(second, n, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    long threads = argc > 1 ? atol(argv[1]) : 1;
    pthread_t thread;
    base = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return 1;
    memset(base + 4096, 7, LEN - 8192);
    for (long k = 0; k < threads; k++)
        if (pthread_create(&thread, NULL, count, (void *)k)) return 1;
    printf("ready %lx %lx\n", (unsigned long)base, (unsigned long)(base + LEN - 4096));
    fflush(stdout);
    for (;;) pause();
}
