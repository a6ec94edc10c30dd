/* A program that hangs: the thread that took the lock has ended without giving it back. */
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>

uint32_t g_lock;

static void lock(void)
{
    uint32_t free = 0;
    while (!__atomic_compare_exchange_n(&g_lock, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        free = 0;
        sched_yield();
    }
}

static void *forget(void *unused)
{
    lock();
    return unused;
}

int main(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, forget, NULL);
    pthread_join(thread, NULL);
    puts("waiting for the lock");
    fflush(stdout);
    lock();
    puts("got the lock");
    return 0;
}
