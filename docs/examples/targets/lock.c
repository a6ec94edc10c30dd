/* A lock of one word, and threads that take it; the program does what its input says. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct lock {
    uint32_t owner; /* the tid of the thread that has it; 0 for none */
    uint32_t takes;
};

struct lock g_lock;
uint32_t g_inside; /* threads between take and give */

static void take(struct lock *lock)
{
    uint32_t self = (uint32_t)syscall(SYS_gettid), none = 0;
    while (!__atomic_compare_exchange_n(&lock->owner, &none, self, 0, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
        none = 0;
        sched_yield();
    }
    lock->takes++;
    g_inside++;
}

static void give(struct lock *lock)
{
    g_inside--;
    __atomic_store_n(&lock->owner, 0, __ATOMIC_RELEASE);
}

static void *work(void *unused)
{
    for (;;) {
        take(&g_lock);
        give(&g_lock);
        usleep(100);
    }
    return unused;
}

int main(void)
{
    char line[64];
    pthread_t thread;
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "take\n")) take(&g_lock);
        else if (!strcmp(line, "give\n")) give(&g_lock);
        else if (!strcmp(line, "work\n")) pthread_create(&thread, NULL, work, NULL);
        puts("ok");
        fflush(stdout);
    }
    return 0;
}
