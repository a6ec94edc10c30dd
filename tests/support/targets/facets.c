/* A target with names: it tells where they are, and loads and unloads others as it is told.
 *
 *   facets [THREADS]
 *
 * It answers one line for each line of its input; at first the addresses of what it defines
 * itself, as "name=hex ..." in one line. Its threads wait in a read of their own.
 *
 *   open PATH        dlopen (path in hex); answers the handle
 *   close HANDLE     dlclose
 *   sym NAME [HANDLE]  dlsym of the program, or of a library; answers the address, 0 for none
 *   call N           answers answer_of(N)
 *   load PATH N      maps the first N bytes of a file, private, r-x; answers the address
 *   unmap A N        munmap
 *   touch A N        writes a byte to each page of N bytes
 *   stripes N        maps N neighbouring pages, every other one read-only; answers the address
 *   guarded N        maps N pages, the last of them a guard
 *   tables           answers the kilobytes of its page tables
 *   exec PATH        runs another program (path in hex)
 *   fault            reads from address 16
 *   ids              answers the ids of its threads
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

extern char **environ;

uint64_t g_counter = 0x1122334455667788;
uint64_t g_words[512] = {1, 2, 3, 5, 8, 13, 21, 34};
const char g_text[] = "a text that nobody writes";
static uint64_t s_bss[64];
static uint64_t s_data = 77;
_Thread_local uint64_t t_own = 5;
void *g_list[2] = {&g_words[1], &g_list[0]};
__attribute__((weak)) int weak_one(void) { return 1; }

static char line[1 << 16];
static int waiting[2];
static long ids[64];

__attribute__((noinline)) int answer_of(int n)
{
    __asm__ volatile("" : "+r"(n));
    return n + 1000;
}

static __attribute__((noinline)) int hidden(int n)
{
    __asm__ volatile("" : "+r"(n));
    return n * 3;
}

__attribute__((noinline)) void wait_here(void)
{
    char byte;
    while (read(waiting[0], &byte, 1) != 0) t_own++;
}

static void *worker(void *argument)
{
    ids[(long)argument] = syscall(SYS_gettid);
    wait_here();
    return NULL;
}

static char *unhex(char *hex)
{
    char *to = hex;
    unsigned int value;
    for (char *from = hex; sscanf(from, "%2x", &value) == 1; from += 2) *to++ = (char)value;
    *to = 0;
    return hex;
}

static void number(unsigned long value) { printf("%lx\n", value); }

static void answer(int failed)
{
    if (failed) printf("error %d\n", errno);
    else printf("ok\n");
}

static void symbol(char *rest)
{
    /* Never RTLD_DEFAULT: by that the program would need the library, and keep it. */
    static void *program;
    char *name = strtok(rest, " "), *handle = strtok(NULL, " ");
    if (!program) program = dlopen(NULL, RTLD_NOW);
    number((unsigned long)dlsym(handle ? (void *)strtoul(handle, NULL, 16) : program, name));
}

static void load(char *rest)
{
    char *path = strtok(rest, " "), *n = strtok(NULL, " ");
    int fd = open(unhex(path), O_RDONLY | O_CLOEXEC);
    void *at = mmap(NULL, atol(n), PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    close(fd);
    if (at == MAP_FAILED) answer(1);
    else number((unsigned long)at);
}

static void stripes(long n)
{
    long page = sysconf(_SC_PAGESIZE);
    char *base = mmap(NULL, n * page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int failed = base == MAP_FAILED;
    for (long k = 0; !failed && k < n; k += 2)
        failed = mprotect(base + k * page, page, PROT_READ);
    if (!failed) base[page] = 99;
    if (failed) answer(1);
    else number((unsigned long)base);
}

static void guarded(long n)
{
    long page = sysconf(_SC_PAGESIZE);
    char *base = mmap(NULL, n * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(base, 7, n * page);
    if (madvise(base + (n - 1) * page, page, MADV_GUARD_INSTALL)) answer(1);
    else number((unsigned long)base);
}

static void tables(void)
{
    char status[4096] = {0};
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    long got = read(fd, status, sizeof status - 1);
    close(fd);
    char *found = got > 0 ? strstr(status, "VmPTE:") : NULL;
    printf("%ld\n", found ? atol(found + 6) : -1);
}

int main(int argc, char **argv)
{
    long threads = argc > 1 ? atol(argv[1]) : 0;
    pthread_t thread;
    if (pipe(waiting)) return 1;
    for (long k = 0; k < threads; k++)
        if (pthread_create(&thread, NULL, worker, (void *)k)) return 1;
    for (long k = 0; k < threads; k++)
        while (!__atomic_load_n(&ids[k], __ATOMIC_SEQ_CST)) usleep(100);
    s_bss[3] = hidden(7);
    printf("g_counter=%lx g_words=%lx g_text=%lx s_bss=%lx s_data=%lx g_list=%lx environ=%lx "
           "answer_of=%lx hidden=%lx weak_one=%lx main=%lx t_own=%lx vdso=%lx\n",
           (long)&g_counter, (long)g_words, (long)g_text, (long)s_bss, (long)&s_data, (long)g_list,
           (long)&environ, (long)answer_of, (long)hidden, (long)weak_one, (long)main,
           (long)&t_own, getauxval(AT_SYSINFO_EHDR));
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char command[16];
        int used = 0;
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%15s%n", command, &used) != 1) continue;
        char *rest = line + used + (line[used] == ' ');
        unsigned long address = 0;
        long n = 0;
        sscanf(rest, "%lx %ld", &address, &n);
        if (!strcmp(command, "open")) number((unsigned long)dlopen(unhex(rest), RTLD_NOW | RTLD_GLOBAL));
        else if (!strcmp(command, "close")) answer(dlclose((void *)address));
        else if (!strcmp(command, "sym")) symbol(rest);
        else if (!strcmp(command, "call")) printf("%d\n", answer_of(atoi(rest)));
        else if (!strcmp(command, "load")) load(rest);
        else if (!strcmp(command, "unmap")) answer(munmap((void *)address, n));
        else if (!strcmp(command, "touch")) {
            for (long k = 0; k < n; k += 4096) ((volatile char *)address)[k] = 1;
            answer(0);
        }
        else if (!strcmp(command, "stripes")) stripes(atol(rest));
        else if (!strcmp(command, "guarded")) guarded(atol(rest));
        else if (!strcmp(command, "tables")) tables();
        else if (!strcmp(command, "exec")) answer(execl(unhex(rest), rest, (char *)NULL));
        else if (!strcmp(command, "fault")) printf("%d\n", *(volatile int *)16);
        else if (!strcmp(command, "ids")) {
            for (long k = 0; k < threads; k++) printf("%ld ", ids[k]);
            printf("\n");
        }
        else printf("error unknown\n");
        fflush(stdout);
    }
    return 0;
}
