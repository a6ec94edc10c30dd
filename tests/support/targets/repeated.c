/* A target that writes a word by repeated instructions and by a plain store right before one.
 *
 * "ready" and the addresses of the word, of the repeated instructions and of the store, as the
 * program's own labels say. For a line of input it answers with a line:
 *   bytes N   rep stosb writes the N bytes from 2048 bytes before the word on
 *   words N   rep stosq, N words from there
 *   copy  N   rep movsb, N bytes
 *   plain     one store writes the word, and then rep stosb writes 16 bytes before it
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char buffer[4096] __attribute__((aligned(4096)));
static unsigned char other[4096];
#define WORD 2048

extern char stosb_here[], stosq_here[], movsb_here[], plain_here[];

int main(void)
{
    char line[32];
    printf("ready %lx %lx %lx %lx %lx\n", (unsigned long)(buffer + WORD), (unsigned long)stosb_here,
           (unsigned long)stosq_here, (unsigned long)movsb_here, (unsigned long)plain_here);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        unsigned long n = strtoul(line + 6, NULL, 10);
        void *to = buffer, *from = other;
        if (!strncmp(line, "bytes ", 6)) {
            __asm__ volatile("stosb_here: rep stosb" : "+D"(to), "+c"(n) : "a"(7) : "memory");
        } else if (!strncmp(line, "words ", 6)) {
            __asm__ volatile("stosq_here: rep stosq" : "+D"(to), "+c"(n) : "a"(7) : "memory");
        } else if (!strncmp(line, "copy  ", 6)) {
            __asm__ volatile("movsb_here: rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
        } else {
            to = buffer + WORD - 16, n = 16;
            __asm__ volatile("plain_here: movq %[v], %[word]\n\trep stosb"
                             : "+D"(to), "+c"(n), [word] "=m"(*(uint64_t *)(buffer + WORD))
                             : "a"(7), [v] "r"(5ul)
                             : "memory");
        }
        puts("done");
        fflush(stdout);
    }
    return 0;
}
