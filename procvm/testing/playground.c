/* A child that does as it is told, one line at a time, and answers each with a line.
 *
 *   layout KIND...   maps neighbouring pages of these kinds; answers the first one's address:
 *                    letters of "rwx"  private anonymous, with these permissions
 *                    none hole         no permission; nothing at all
 *                    shared            shared anonymous, rw
 *                    file              private, rw, of a file
 *                    guard             rw, with a guard installed in it
 *   protect A N P    mprotect to the letters P, or to none
 *   unmap A N        munmap
 *   peek A N         answers the bytes that its own loads give, and where they fault if they do
 *   poke A HEX       the same for its own stores; answers how many bytes were stored
 *   fpeek A N        as peek, by /proc/self/mem: whatever the page allows
 *   fpoke A HEX      as poke, likewise
 *   contents A       answers what the file of the page at A holds
 *   count A          starts a thread that counts the 8-byte word at A up for ever
 *
 * The byte at address A of a new page is pattern(A), never 0. The end of its input ends it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#define LINE_LEN (1 << 18)
#define FILES 64

static long page;
static int self_mem;
static char line[LINE_LEN];
static struct { uintptr_t at; int fd; } files[FILES];
static int files_len;

static __thread sigjmp_buf *back;

static void faulted(int signo, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    if (back) siglongjmp(*back, 1);
    signal(signo, SIG_DFL); /* not in an access that was asked for: it ends as any program does */
}

static unsigned char pattern(uintptr_t address)
{
    return (unsigned char)(1 + (address * 7 + (address >> 12) * 13) % 255);
}

static int perms_of(const char *letters)
{
    return (strchr(letters, 'r') ? PROT_READ : 0) | (strchr(letters, 'w') ? PROT_WRITE : 0) |
           (strchr(letters, 'x') ? PROT_EXEC : 0);
}

static void fill(unsigned char *at)
{
    for (long k = 0; k < page; k++) at[k] = pattern((uintptr_t)at + k);
}

static int map_file(unsigned char *at)
{
    int rw = PROT_READ | PROT_WRITE, fd = memfd_create("playground", MFD_CLOEXEC);
    if (fd < 0 || files_len == FILES || ftruncate(fd, page)) return -1;
    if (mmap(at, page, rw, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) return -1;
    fill(at);
    if (mmap(at, page, rw, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED) return -1;
    files[files_len].at = (uintptr_t)at;
    files[files_len++].fd = fd;
    return 0;
}

static int make(unsigned char *at, const char *kind)
{
    int share = strcmp(kind, "shared") ? MAP_PRIVATE : MAP_SHARED;
    if (!strcmp(kind, "hole")) return munmap(at, page);
    if (!strcmp(kind, "file")) return map_file(at);
    if (mmap(at, page, PROT_READ | PROT_WRITE, share | MAP_FIXED | MAP_ANONYMOUS, -1, 0) ==
        MAP_FAILED) return -1;
    fill(at);
    if (!strcmp(kind, "shared")) return 0;
    if (!strcmp(kind, "guard")) return madvise(at, page, MADV_GUARD_INSTALL);
    return mprotect(at, page, strcmp(kind, "none") ? perms_of(kind) : PROT_NONE);
}

static void answer(int failed)
{
    if (failed) printf("error %d\n", errno);
    else printf("ok\n");
}

/* In a part of the address space where the kernel puts nothing by itself, so that a hole stays one;
 * not at the same place in every child, so that two are not taken for each other. */
static void layout(char *kinds)
{
    static uintptr_t next;
    long n = 1, k = 0;
    for (char *c = kinds; *c; c++) n += *c == ' ';
    if (!next) next = (64ul << 30) + ((unsigned long)(getpid() % 64) << 30);
    unsigned char *base = (unsigned char *)next;
    if (mmap(base, n * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
        base) { answer(1); return; }
    next += (n + 256) * page;
    for (char *kind = strtok(kinds, " "); kind; kind = strtok(NULL, " "), k++)
        if (make(base + k * page, kind)) { answer(1); return; }
    printf("%lx\n", (unsigned long)base);
}

/* One access; returns whether it was made. */
static int access_one(uintptr_t address, unsigned char *byte, int store, int forced)
{
    sigjmp_buf here;
    if (forced)
        return (store ? pwrite(self_mem, byte, 1, (off_t)address)
                      : pread(self_mem, byte, 1, (off_t)address)) == 1;
    if (sigsetjmp(here, 1)) { back = NULL; return 0; }
    back = &here;
    if (store) *(volatile unsigned char *)address = *byte;
    else *byte = *(volatile unsigned char *)address;
    back = NULL;
    return 1;
}

static void peek(uintptr_t address, long n, int forced)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char byte;
    for (long k = 0; k < n; k++) {
        if (!access_one(address + k, &byte, 0, forced)) { printf(" fault"); break; }
        putchar(digits[byte >> 4]);
        putchar(digits[byte & 15]);
    }
    printf("\n");
}

static int digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void poke(uintptr_t address, const char *hex, int forced)
{
    long done = 0;
    for (; hex[0] && hex[1]; hex += 2, done++) {
        unsigned char byte = (unsigned char)(digit(hex[0]) << 4 | digit(hex[1]));
        if (!access_one(address + done, &byte, 1, forced)) { printf("%ld fault\n", done); return; }
    }
    printf("%ld\n", done);
}

static void contents(uintptr_t address)
{
    for (int k = files_len - 1; k >= 0; k--)
        if (files[k].at == address) {
            for (long at = 0; at < page; at++) {
                unsigned char byte = 0;
                if (pread(files[k].fd, &byte, 1, at) != 1) break;
                printf("%02x", byte);
            }
            printf("\n");
            return;
        }
    errno = ENOENT;
    answer(1);
}

static void *count(void *word)
{
    for (;;) __atomic_fetch_add((uint64_t *)word, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

int main(void)
{
    struct sigaction action = { .sa_sigaction = faulted, .sa_flags = SA_SIGINFO };
    page = sysconf(_SC_PAGESIZE);
    self_mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    while (fgets(line, sizeof line, stdin)) {
        char command[16] = "", text[16] = "";
        unsigned long address = 0;
        long n = 0;
        int used = 0;
        line[strcspn(line, "\n")] = 0;
        sscanf(line, "%15s%n", command, &used);
        char *rest = line + used + (line[used] == ' ');
        sscanf(rest, "%lx %ld %15s", &address, &n, text);
        char *hex = strchr(rest, ' ') ? strchr(rest, ' ') + 1 : "";
        if (!strcmp(command, "layout")) layout(rest);
        else if (!strcmp(command, "protect"))
            answer(mprotect((void *)address, n, strcmp(text, "none") ? perms_of(text) : PROT_NONE));
        else if (!strcmp(command, "unmap")) answer(munmap((void *)address, n));
        else if (!strcmp(command, "peek")) peek(address, n, 0);
        else if (!strcmp(command, "poke")) poke(address, hex, 0);
        else if (!strcmp(command, "fpeek")) peek(address, n, 1);
        else if (!strcmp(command, "fpoke")) poke(address, hex, 1);
        else if (!strcmp(command, "contents")) contents(address);
        else if (!strcmp(command, "count")) {
            pthread_t thread;
            answer((errno = pthread_create(&thread, NULL, count, (void *)address)));
        }
        else { errno = EINVAL; answer(1); }
        fflush(stdout);
    }
    return 0;
}
