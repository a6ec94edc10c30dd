/* A target whose address space changes at full speed while it is read and written.
 *
 *   storm MODE
 *
 * MODE:  protect   pages of the region become PROT_NONE and writable again, with their contents
 *        unmap     pages of the region go away, and come back with their contents
 *        poison    pages of the region are replaced by PROT_NONE pages full of POISON and back;
 *                  each replacement is one step, so that POISON is never accessible in the region
 *        churn     a region of 1,500 pages is split, joined, unmapped and mapped everywhere
 *
 * It answers "ready REGION NR_PAGES"; a line starts the storm (answered "ok"); "count" is answered
 * with the changes it has made so far; any other line ends it (answered "stopped CYCLES TOUCHED":
 * the changes, and how many of the pages that were taken out had a byte that was not POISON).
 * The contents are the playground's pattern.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NR_PAGES 64
#define NR_CHURN 1500
#define POISON 0xbd

static long page;
static unsigned char *region;
static volatile int running;
static volatile unsigned long cycles, touched;
static const char *mode;

static unsigned char pattern(uintptr_t address)
{
    return (unsigned char)(1 + (address * 7 + (address >> 12) * 13) % 255);
}

static unsigned char *fresh(void)
{
    void *at = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) abort();
    return at;
}

/* A page with the contents that belong at `at`, put there in one step. */
static void put_good(unsigned char *at)
{
    unsigned char *good = fresh();
    for (long k = 0; k < page; k++) good[k] = pattern((uintptr_t)at + k);
    if (mremap(good, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at) abort();
}

static void put_poison(unsigned char *at)
{
    unsigned char *bad = fresh();
    memset(bad, POISON, page);
    if (mprotect(bad, page, PROT_NONE)) abort();
    if (mremap(bad, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at) abort();
}

/* Takes the poisoned page out, and looks whether anybody wrote there. */
static void take_poison(unsigned char *at)
{
    unsigned char *out = fresh();
    if (mremap(at, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, out) != out) abort();
    if (mprotect(out, page, PROT_READ)) abort();
    int clean = 1;
    for (long k = 0; k < page; k++) clean &= out[k] == POISON;
    touched += !clean;
    munmap(out, page);
}

static uint64_t random_state = 88172645463325252ull;

static unsigned next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 20);
}

static void rest(unsigned turns)
{
    for (volatile unsigned k = 0; k < turns; k++) { }
}

static void churn(void)
{
    unsigned k = next_random() % NR_CHURN, n = 1 + next_random() % 40;
    unsigned char *at = region + (long)k * page;
    if (k + n > NR_CHURN) n = NR_CHURN - k;
    switch (next_random() % 4) {
    case 0: munmap(at, n * page); break;
    case 1:
        mmap(at, n * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        break;
    case 2:
        mmap(at, n * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        break;
    default:
        for (unsigned j = 0; j < n; j += 2)
            mmap(at + j * page, page, j & 2 ? PROT_NONE : PROT_READ,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
}

static void *storm(void *unused)
{
    (void)unused;
    while (running) {
        unsigned char *at = region + (long)(next_random() % NR_PAGES) * page;
        if (!strcmp(mode, "churn")) churn();
        else if (!strcmp(mode, "protect")) {
            if (mprotect(at, page, PROT_NONE)) abort();
            rest(next_random() % 4000);
            if (mprotect(at, page, PROT_READ | PROT_WRITE)) abort();
        } else if (!strcmp(mode, "unmap")) {
            munmap(at, page);
            rest(next_random() % 4000);
            put_good(at);
        } else {
            put_poison(at);
            rest(next_random() % 2000);
            take_poison(at);
            put_good(at);
        }
        rest(next_random() % 20000);
        cycles++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    char line[64];
    pthread_t thread;
    page = sysconf(_SC_PAGESIZE);
    if (argc != 2) return 2;
    mode = argv[1];
    long n = !strcmp(mode, "churn") ? NR_CHURN : NR_PAGES;
    region = mmap(NULL, (n + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED) return 1;
    region += page;
    if (n == NR_PAGES)
        for (long k = 0; k < n; k++) put_good(region + k * page);
    printf("ready %lx %ld\n", (unsigned long)region, n);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 0;
    running = 1;
    pthread_create(&thread, NULL, storm, NULL);
    printf("ok\n");
    fflush(stdout);
    do {
        if (!fgets(line, sizeof line, stdin)) return 0;
        if (!strcmp(line, "count\n")) printf("%lu\n", cycles), fflush(stdout);
    } while (!strcmp(line, "count\n"));
    running = 0;
    pthread_join(thread, NULL);
    printf("stopped %lu %lu\n", cycles, touched);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 0;
    return 0;
}
