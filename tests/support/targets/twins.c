/* Threads that check all the time whether two words are equal. It answers where these are, and where
 * a page is that nobody may write; then a line of input with how often the words were looked at and
 * how often they were not equal. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

struct { volatile uint64_t first; char between[8192]; volatile uint64_t second; } g_twins;

static uint64_t looks, unequal;

static void *look(void *unused)
{
    (void)unused;
    for (;;) {
        /* The same instant twice: what was written between the loads is no difference. */
        uint64_t a = g_twins.first, b = g_twins.second, c = g_twins.first;
        if (a == c && a != b) __atomic_fetch_add(&unequal, 1, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(&looks, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

int main(void)
{
    char line[16];
    pthread_t thread;
    for (int k = 0; k < 2; k++)
        if (pthread_create(&thread, NULL, look, NULL)) return 1;
    void *page = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    printf("ready %lx %lx %lx\n", (unsigned long)&g_twins.first, (unsigned long)&g_twins.second,
           (unsigned long)page);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%lu %lu\n", (unsigned long)__atomic_load_n(&looks, __ATOMIC_SEQ_CST),
               (unsigned long)__atomic_load_n(&unequal, __ATOMIC_SEQ_CST));
        fflush(stdout);
    }
    return 0;
}
