/* A program with names that have no size, as those of assembly have: "ready ONE TWO". */
#include <stdio.h>

__asm__(".text\n.globl bare_one\nbare_one: nop\n nop\n nop\n.globl bare_two\nbare_two: nop\n nop\n ret\n");
extern char bare_one[], bare_two[];

int main(void)
{
    printf("ready %lx %lx\n", (unsigned long)bare_one, (unsigned long)bare_two);
    fflush(stdout);
    return getchar() == EOF ? 0 : 1;
}
