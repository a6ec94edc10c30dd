/* A target that does what it is told, one line at a time, and answers each.
 *
 *   layout KIND...     maps neighbouring pages of these kinds; answers the first one's address
 *                      rw r none wo xo hole rwx  private anonymous
 *                      srw sr                    shared anonymous
 *                      file                      private file page with contents, rw
 *                      fro                       private read-only file page with contents
 *                      eof                       file mapping past the end of its file, rw
 *                      guard                     rw, with MADV_GUARD_INSTALL
 *   protect A N KIND   mprotect
 *   unmap A N          munmap
 *   map A N KIND       mmap at a fixed place (rw r none)
 *   peek A N           answers N bytes as hex, whatever the page allows; - for what is not there
 *   poke A HEX         writes bytes, whatever the page allows
 *   clear A N          as if the pages were new: fills them with the pattern
 *   spin A             a thread that counts the 8-byte word at A up
 *   exit N             ends
 *   reserve N          maps N private anonymous bytes nobody has touched; answers the address
 *   window N M         maps M shared bytes again and again over N; answers the address
 *   mapfile PATH N KIND  maps N bytes of a file (path in hex); rw r: private, srw sr: shared
 *   memfd NAME N       maps N bytes of a new memfd (name in hex), shared
 *   comm NAME          takes a name (in hex)
 *   storm A N KIND     a thread that makes the pages at A rw and KIND again, for ever
 *   random             answers where the 16 random bytes of its exec are (AT_RANDOM)
 *
 * The byte at address A of a new page is pattern(A), never 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static long page;
static int self_mem;
static char line[1 << 20];

static unsigned char pattern(uintptr_t address)
{
    return (unsigned char)(1 + (address * 7 + (address >> 12) * 13) % 255);
}

static int perms_of(const char *kind)
{
    if (!strcmp(kind, "r") || !strcmp(kind, "sr") || !strcmp(kind, "fro")) return PROT_READ;
    if (!strcmp(kind, "none")) return PROT_NONE;
    if (!strcmp(kind, "wo")) return PROT_WRITE;
    if (!strcmp(kind, "xo")) return PROT_EXEC;
    if (!strcmp(kind, "rwx")) return PROT_READ | PROT_WRITE | PROT_EXEC;
    return PROT_READ | PROT_WRITE;
}

static void fill(unsigned char *at, long n)
{
    for (long k = 0; k < n; k++) at[k] = pattern((uintptr_t)at + k);
}

static int file_of(unsigned char *at, long len)
{
    int fd = memfd_create("playground", MFD_CLOEXEC);
    unsigned char *contents = malloc(len);
    if (fd < 0 || !contents) return -1;
    for (long k = 0; k < len; k++) contents[k] = pattern((uintptr_t)at + k);
    long written = pwrite(fd, contents, len, 0);
    free(contents);
    return written == len ? fd : -1;
}

static int make(unsigned char *at, const char *kind)
{
    int rw = PROT_READ | PROT_WRITE, fixed = MAP_FIXED | MAP_ANONYMOUS;
    if (!strcmp(kind, "hole")) return munmap(at, page);
    if (!strcmp(kind, "file") || !strcmp(kind, "fro") || !strcmp(kind, "eof")) {
        int fd = file_of(at, page);
        long offset = !strcmp(kind, "eof") ? page : 0;
        if (fd < 0) return -1;
        void *got = mmap(at, page, perms_of(kind), MAP_PRIVATE | MAP_FIXED, fd, offset);
        close(fd);
        return got == MAP_FAILED ? -1 : 0;
    }
    int share = kind[0] == 's' ? MAP_SHARED : MAP_PRIVATE;
    if (mmap(at, page, rw, share | fixed, -1, 0) == MAP_FAILED) return -1;
    fill(at, page);
    if (!strcmp(kind, "guard")) return madvise(at, page, MADV_GUARD_INSTALL);
    return mprotect(at, page, perms_of(kind));
}

static void *count(void *word)
{
    for (;;) __atomic_fetch_add((uint64_t *)word, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void answer(int failed)
{
    if (failed) printf("error %d\n", errno);
    else printf("ok\n");
}

static void layout(char *kinds)
{
    unsigned char *base;
    long n = 0;
    for (char *k = kinds; *k; k++) n += *k == ' ' && k[1] && k[1] != ' ';
    n += 1;
    /* A page of nothing on both sides, so that neighbours are only those asked for. */
    base = mmap(NULL, (n + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) { answer(1); return; }
    munmap(base, page);
    munmap(base + (n + 1) * page, page);
    base += page;
    long at = 0;
    for (char *kind = strtok(kinds, " "); kind; kind = strtok(NULL, " "), at++)
        if (make(base + at * page, kind)) { answer(1); return; }
    printf("%lx\n", (unsigned long)base);
}

static void peek(uintptr_t address, long n)
{
    unsigned char bytes[4096];
    while (n > 0) {
        long most = n < (long)sizeof bytes ? n : (long)sizeof bytes;
        long got = pread(self_mem, bytes, most, (off_t)address);
        if (got <= 0) printf("--");
        for (long k = 0; k < got; k++) {
            putchar("0123456789abcdef"[bytes[k] >> 4]);
            putchar("0123456789abcdef"[bytes[k] & 15]);
        }
        address += got > 0 ? got : 1;
        n -= got > 0 ? got : 1;
    }
    printf("\n");
}

static void poke(uintptr_t address, const char *hex)
{
    for (; hex[0] && hex[1]; hex += 2, address++) {
        unsigned int value;
        unsigned char byte;
        if (sscanf(hex, "%2x", &value) != 1) break;
        byte = (unsigned char)value;
        if (pwrite(self_mem, &byte, 1, (off_t)address) != 1) { answer(1); return; }
    }
    answer(0);
}

/* Decodes hex in place. */
static char *unhex(char *hex)
{
    char *to = hex;
    unsigned int value;
    for (char *from = hex; sscanf(from, "%2x", &value) == 1; from += 2) *to++ = (char)value;
    *to = 0;
    return hex;
}

static void mapped(void *at)
{
    if (at == MAP_FAILED) answer(1);
    else printf("%lx\n", (unsigned long)at);
}

static void reserve(long n)
{
    mapped(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                0));
}

static void window(long n, long len)
{
    int fd = memfd_create("window", MFD_CLOEXEC);
    char *base = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int failed = fd < 0 || ftruncate(fd, len) || base == MAP_FAILED;
    for (long at = 0; !failed && at < n; at += len)
        failed = mmap(base + at, n - at < len ? n - at : len, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED;
    close(fd);
    mapped(failed ? MAP_FAILED : base);
}

static void map_fd(int fd, long n, const char *kind)
{
    int share = kind[0] == 's' ? MAP_SHARED : MAP_PRIVATE;
    mapped(fd < 0 ? MAP_FAILED : mmap(NULL, n, perms_of(kind), share, fd, 0));
    if (fd >= 0) close(fd);
}

static void mapfile(char *rest)
{
    char *path = strtok(rest, " "), *n = strtok(NULL, " "), *kind = strtok(NULL, " ");
    int flags = !strcmp(kind, "srw") ? O_RDWR : O_RDONLY;
    map_fd(open(unhex(path), flags | O_CLOEXEC), atol(n), kind);
}

static void map_memfd(char *rest)
{
    char *name = strtok(rest, " "), *n = strtok(NULL, " ");
    int fd = memfd_create(unhex(name), MFD_CLOEXEC);
    if (fd >= 0 && ftruncate(fd, atol(n))) { close(fd); fd = -1; }
    map_fd(fd, atol(n), "srw");
}

struct storm { char *at; long n; char kind[16]; };

static void *blow(void *argument)
{
    struct storm *storm = argument;
    int hole = !strcmp(storm->kind, "hole");
    for (;;) {
        if (hole) {
            munmap(storm->at, storm->n);
            mmap(storm->at, storm->n, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        } else {
            mprotect(storm->at, storm->n, perms_of(storm->kind));
            mprotect(storm->at, storm->n, PROT_READ | PROT_WRITE);
        }
    }
    return NULL;
}

static void start_storm(unsigned long at, long n, const char *kind)
{
    pthread_t thread;
    struct storm *storm = malloc(sizeof *storm);
    storm->at = (char *)at;
    storm->n = n;
    strcpy(storm->kind, kind);
    answer(pthread_create(&thread, NULL, blow, storm));
}

int main(void)
{
    page = sysconf(_SC_PAGESIZE);
    self_mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    setvbuf(stdout, NULL, _IOFBF, 1 << 20);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char command[16], kind[16];
        unsigned long address = 0;
        long n = 0;
        int used = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%15s%n", command, &used) != 1) continue;
        char *rest = line + used + (line[used] == ' ');
        sscanf(rest, "%lx %ld %15s", &address, &n, kind);
        if (!strcmp(command, "layout")) layout(rest);
        else if (!strcmp(command, "protect")) answer(mprotect((void *)address, n, perms_of(kind)));
        else if (!strcmp(command, "unmap")) answer(munmap((void *)address, n));
        else if (!strcmp(command, "map")) {
            answer(mmap((void *)address, n, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ||
                   mprotect((void *)address, n, perms_of(kind)));
        }
        else if (!strcmp(command, "clear")) { fill((unsigned char *)address, n); answer(0); }
        else if (!strcmp(command, "peek")) peek(address, n);
        else if (!strcmp(command, "poke")) {
            char *hex = strchr(rest, ' ');
            poke(address, hex ? hex + 1 : "");
        }
        else if (!strcmp(command, "spin")) {
            pthread_t thread;
            answer(pthread_create(&thread, NULL, count, (void *)address));
        }
        else if (!strcmp(command, "reserve")) reserve(atol(rest));
        else if (!strcmp(command, "window")) {
            char *len = strchr(rest, ' ');
            window(atol(rest), len ? atol(len) : 0);
        }
        else if (!strcmp(command, "mapfile")) mapfile(rest);
        else if (!strcmp(command, "memfd")) map_memfd(rest);
        else if (!strcmp(command, "comm")) answer(prctl(PR_SET_NAME, unhex(rest), 0, 0, 0));
        else if (!strcmp(command, "storm")) start_storm(address, n, kind);
        else if (!strcmp(command, "random")) printf("%lx\n", getauxval(AT_RANDOM));
        else if (!strcmp(command, "exit")) exit((int)address);
        else printf("error unknown\n");
        fflush(stdout);
    }
    return 0;
}
