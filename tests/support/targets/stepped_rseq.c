/* Turns for ever in a restartable sequence of its own. Each abort by the kernel counts one, and
 * runs `aborted` first. On SIGUSR2 it prints the count and ends with 7. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/rseq.h>
#include <unistd.h>

static volatile uint64_t aborts;

static void report(int signo)
{
    char line[40];
    (void)signo;
    int length = snprintf(line, sizeof line, "%lu\n", (unsigned long)aborts);
    _exit(write(STDOUT_FILENO, line, (size_t)length) == length ? 7 : 8);
}

struct rseq_cs_area {
    uint32_t version, flags;
    uint64_t start, length, abort;
} __attribute__((aligned(32)));

int main(void)
{
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    if (!__rseq_size) return 3;
    signal(SIGUSR2, report);
    if (write(STDOUT_FILENO, "ready\n", 6) != 6) return 1;
    for (;;) {
        static struct rseq_cs_area sequence;
        __asm__ volatile(
            "lea 1f(%%rip), %%rax\n mov %%rax, 8(%0)\n"
            "lea 2f(%%rip), %%rcx\n sub %%rax, %%rcx\n mov %%rcx, 16(%0)\n"
            "lea 3f(%%rip), %%rax\n mov %%rax, 24(%0)\n"
            "mov %0, 8(%1)\n"
            "1: nop\n nop\n pause\n jmp 1b\n"
            "2: jmp 4f\n"
            ".long 0x53053053\n"
            "3: nop\n"
            ".globl aborted\naborted: incq %2\n"
            "4:\n"
            :
            : "r"(&sequence), "r"(area), "m"(aborts)
            : "rax", "rcx", "memory");
    }
}
