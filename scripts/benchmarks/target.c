/* The process that is read: pages that are all there, whose addresses it prints, until stdin ends.
 *   target LEN */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    size_t len = argc > 1 ? strtoul(argv[1], NULL, 10) : 1 << 20;
    unsigned char *data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char end;

    if (data == MAP_FAILED)
        return 1;
    /* Pages of the usual size: whether there are huge ones depends on the machine. */
    madvise(data, len, MADV_NOHUGEPAGE);
    for (size_t k = 0; k < len; k += 8)
        memcpy(data + k, &k, 8);
    /* Where Yama lets a process be read by its parent only. */
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    printf("%lu\n", (unsigned long)data);
    fflush(stdout);
    while (read(0, &end, 1) > 0)
        ;
    return 0;
}
