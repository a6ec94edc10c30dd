/* Maps objects and touches almost nothing of them: what a tool makes resident is the tool's doing.
 *
 * ARGV[1] is a sparse file on a disk. Prints a line "NAME ADDRESS DESCRIPTOR" for each object and
 * then "up". Each byte on stdin is answered by a line: for each object the number of its pages
 * that this process has mapped, by /proc/self/pagemap, and its blocks of 512 bytes. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 32 << 20, PAGE = 4096, PRIVATE_WRITTEN = 5, OTHER_WRITTEN = 9 };

static struct object { const char *name; char *at; int fd; } objects[16];
static int nr;

static void show(const char *name, int fd, int flags) {
    char *at = mmap(0, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (at == MAP_FAILED) { perror(name); exit(1); }
    objects[nr++] = (struct object){name, at, fd};
    printf("%s %lx %d\n", name, (unsigned long)at, fd);
}

static int memfd(const char *name) {
    int fd = memfd_create(name, 0);
    if (fd < 0 || ftruncate(fd, SIZE)) { perror(name); exit(1); }
    return fd;
}

static long mapped(const char *at) {
    static uint64_t entries[SIZE / PAGE];
    int fd = open("/proc/self/pagemap", O_RDONLY);
    long found = 0;
    ssize_t n = pread(fd, entries, sizeof entries, (uintptr_t)at / PAGE * 8);
    close(fd);
    for (long k = 0; k < n / 8; k++) found += entries[k] >> 63;
    return found;
}

int main(int argc, char **argv) {
    int file = open(argv[argc - 1], O_RDWR), fd;
    char c;
    if (file < 0) { perror(argv[argc - 1]); return 1; }
    show("anonymous", -1, MAP_SHARED | MAP_ANONYMOUS);
    show("memfd", memfd("plain"), MAP_SHARED);
    /* What another process wrote: in the object, never in the page tables of this one. */
    fd = memfd("written");
    if (pwrite(fd, "other-wrote", 11, OTHER_WRITTEN * PAGE + 100) != 11) return 1;
    show("written", fd, MAP_SHARED);
    fd = memfd("private");
    if (pwrite(fd, "other-wrote", 11, OTHER_WRITTEN * PAGE + 100) != 11) return 1;
    show("private", fd, MAP_PRIVATE);
    strcpy(objects[nr - 1].at + PRIVATE_WRITTEN * PAGE + 7, "target-wrote");
    /* An object whose descriptor is closed: only its mapping leads to it. */
    fd = memfd("closed");
    if (pwrite(fd, "other-wrote", 11, OTHER_WRITTEN * PAGE + 100) != 11) return 1;
    show("closed", fd, MAP_SHARED);
    strcpy(objects[nr - 1].at + PRIVATE_WRITTEN * PAGE + 7, "target-wrote");
    close(fd);
    objects[nr - 1].fd = -1;
    show("file", file, MAP_SHARED);
    show("filecopy", file, MAP_PRIVATE);
    strcpy(objects[nr - 1].at + PRIVATE_WRITTEN * PAGE + 7, "target-wrote");
    puts("up");
    fflush(stdout);
    while (read(0, &c, 1) == 1) {
        for (int k = 0; k < nr; k++) {
            struct stat status = {0};
            if (objects[k].fd >= 0 && fstat(objects[k].fd, &status)) return 1;
            printf("%ld %ld ", mapped(objects[k].at), (long)status.st_blocks);
        }
        puts("");
        fflush(stdout);
    }
}
