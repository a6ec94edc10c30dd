/* Counts a word of an inherited memfd up, by compare-and-exchange, beside the tool.
 *
 *   counter FD OFFSET BITS STOP
 *
 * Maps FD, says "ready", waits for a line, adds 1 to the word at OFFSET, with a
 * rest now and then, until the byte at STOP is not 0, and says how often it did.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static uint32_t seed = 2463534242u;

static void rest_now_and_then(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    /* Runs of increments, and rests in which the tool has its turn. */
    if (seed % 8 == 0)
        for (volatile uint32_t k = seed / 8 % 8000; k; k--) {}
}

#define COUNT(type)                                                                      \
    static unsigned long count_##type(type *word, const volatile char *stop)            \
    {                                                                                    \
        unsigned long done = 0;                                                          \
        for (; !*stop; done++) {                                                         \
            type old = __atomic_load_n(word, __ATOMIC_SEQ_CST);                          \
            while (!__atomic_compare_exchange_n(word, &old, (type)(old + 1), 0,          \
                                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}  \
            rest_now_and_then();                                                         \
        }                                                                                \
        return done;                                                                     \
    }

COUNT(uint32_t)
COUNT(uint64_t)

int main(int argc, char **argv)
{
    struct stat status;
    char line[16];
    if (argc != 5) return 2;
    int fd = atoi(argv[1]);
    if (fstat(fd, &status)) return 3;
    char *pages = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (pages == MAP_FAILED) return 4;
    void *word = pages + atol(argv[2]);
    char *stop = pages + atol(argv[4]);
    printf("ready\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 5;
    printf("%lu\n", strcmp(argv[3], "64") ? count_uint32_t(word, stop) : count_uint64_t(word, stop));
    return 0;
}
