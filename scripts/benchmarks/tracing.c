/* The same stops in C, by the calls of ptrace that a program without procvm would make.
 *
 * Every function that is not static does its job `n` times, puts the nanoseconds of each into
 * `each`, and returns 0, or -1 if one went wrong. The thread that calls it is the tracer. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "now.h"

enum { MAX_TASKS = 4096 };

typedef int job(int pid, uint64_t address);

static int nothing(int pid, uint64_t address)
{
    (void)pid;
    (void)address;
    return 0;
}

/* Only `work` is timed. */
static int again(job *work, job *after, int pid, uint64_t address, int64_t *each, uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        int64_t start = now();

        if (work(pid, address) != 0)
            return -1;
        each[k] = now() - start;
        if (after(pid, address) != 0)
            return -1;
    }
    return 0;
}

static int ask_to_stop(int tid)
{
    if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0)
        return -1;
    return ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) != 0 ? -1 : 0;
}

static int await_stop(int tid)
{
    int status;

    return waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status) ? 0 : -1;
}

static int stop(int pid, uint64_t address)
{
    (void)address;
    return ask_to_stop(pid) != 0 ? -1 : await_stop(pid);
}

static int resume(int pid, uint64_t address)
{
    (void)address;
    return ptrace(PTRACE_DETACH, pid, NULL, NULL) != 0 ? -1 : 0;
}

static int load(int pid, uint64_t address)
{
    errno = 0;
    ptrace(PTRACE_PEEKDATA, pid, (void *)address, NULL);
    return errno != 0 ? -1 : 0;
}

/* What it compares with is 0, and that is what it stores. */
static int exchange(int pid, uint64_t address)
{
    long found;

    errno = 0;
    found = ptrace(PTRACE_PEEKDATA, pid, (void *)address, NULL);
    if (errno != 0 || found != 0)
        return -1;
    return ptrace(PTRACE_POKEDATA, pid, (void *)address, NULL) != 0 ? -1 : 0;
}

static int stop_and_resume(int pid, uint64_t address)
{
    return stop(pid, address) != 0 ? -1 : resume(pid, address);
}

static int stop_exchange_resume(int pid, uint64_t address)
{
    if (stop(pid, address) != 0 || exchange(pid, address) != 0)
        return -1;
    return resume(pid, address);
}

static int stop_load_resume(int pid, uint64_t address)
{
    if (stop(pid, address) != 0 || load(pid, address) != 0)
        return -1;
    return resume(pid, address);
}

/* All tasks are asked before the first is waited for. None may be born meanwhile. */
static int stop_all_and_resume(int pid, uint64_t address)
{
    char path[64];
    int tids[MAX_TASKS];
    int count = 0;
    struct dirent *entry;
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%d/task", pid);
    folder = opendir(path);
    if (folder == NULL)
        return -1;
    while (count < MAX_TASKS && (entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.')
            tids[count++] = atoi(entry->d_name);
    closedir(folder);
    for (int k = 0; k < count; k++)
        if (ask_to_stop(tids[k]) != 0)
            return -1;
    for (int k = 0; k < count; k++)
        if (await_stop(tids[k]) != 0)
            return -1;
    for (int k = 0; k < count; k++)
        if (resume(tids[k], address) != 0)
            return -1;
    return 0;
}

int trace_stop(int pid, uint64_t address, int64_t *each, uint64_t n)
{
    return again(stop, resume, pid, address, each, n);
}

int trace_stop_resume(int pid, uint64_t address, int64_t *each, uint64_t n)
{
    return again(stop_and_resume, nothing, pid, address, each, n);
}

int trace_stop_all_resume(int pid, uint64_t address, int64_t *each, uint64_t n)
{
    return again(stop_all_and_resume, nothing, pid, address, each, n);
}

int trace_load(int pid, uint64_t address, int64_t *each, uint64_t n)
{
    return again(stop_load_resume, nothing, pid, address, each, n);
}

int trace_exchange(int pid, uint64_t address, int64_t *each, uint64_t n)
{
    return again(stop_exchange_resume, nothing, pid, address, each, n);
}

int trace_exchange_held(int pid, uint64_t address, int64_t *each, uint64_t n)
{
    if (stop(pid, address) != 0 || again(exchange, nothing, pid, address, each, n) != 0)
        return -1;
    return resume(pid, address);
}
