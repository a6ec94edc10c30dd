/* Loads known values into the registers of floating point and vectors, and waits in a system call:
 * xmm3 (and ymm4's upper half with AVX), st0 = pi on x86-64; v3 on aarch64. "ready WORD" tells where
 * it keeps a word. */
#include <stdint.h>
#include <stdio.h>

static uint64_t low[2] = {0x1122334455667788, 0x99aabbccddeeff00};
static uint64_t wide[4] = {1, 2, 3, 0xfedcba9876543210};
static uint64_t word = 0x5eed;

int main(void)
{
    printf("ready %lx %d\n", (unsigned long)&word,
#ifdef __x86_64__
           __builtin_cpu_supports("avx") ? 1 : 0
#else
           0
#endif
    );
    fflush(stdout);
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx")) __asm__ volatile("vmovdqu %0, %%ymm4" ::"m"(wide));
    __asm__ volatile("movdqu %1, %%xmm3\n\tfldpi\n\tmov %2, %%rbx\n\tpush %%rbx\n\tmov $34, %%eax\n"
                     "1:\tsyscall\n\tmov $34, %%eax\n\tjmp 1b"  /* pause */
                     ::"m"(wide), "m"(low), "r"((uint64_t)&word) : "rax", "rbx", "rcx", "r11", "memory");
#else
    (void)wide;
    (void)low;
#endif
    return 0;
}
