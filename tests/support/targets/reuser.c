/* A server whose children all have the same image, the same addresses, the same random bytes of
 * the exec, and the same pid, one after the other. Needs root (clone3 with set_tid, or the same by
 * /proc/sys/kernel/ns_last_pid).
 *
 *   It answers "ready SERIAL BOX" with the addresses of the two words, then each line:
 *   fork          forks; answers the child's pid
 *   forkas PID    forks a child with that pid; answers it
 *   lastpid PID   the same by writing ns_last_pid; answers 0 if another process was faster
 *   end           the child ends and is reaped; answers 0 if its box was PRISTINE to the end
 *   race PID N [LIFE]  N children with that pid, one after the other at full speed, or fewer if a line
 *                 of input comes; answers "raced N BAD" with the number of children there were, and
 *                 of those whose box held what was not theirs; SIGKILL may end any of them;
 *                 they live LIFE times as long
 *
 * The serial is 0 in a new child, then its number. The box is PRISTINE: only who knows the serial
 * may write there, and (serial << 32 | TAG) only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PRISTINE 0x5afe5afe5afe5afeull
#define TAG 0xb0b0ull

static volatile uint64_t serial;
static volatile uint64_t box = PRISTINE;
static uint64_t next_serial;
static unsigned life;
static int control[2], began[2];

static int bad_box(uint64_t mine, int tagged)
{
    uint64_t now = box;
    return now != PRISTINE && !(tagged && now == (mine << 32 | TAG));
}

static void child_waits(void)
{
    char byte;
    serial = next_serial;
    close(control[1]);
    if (write(began[1], "", 1) != 1) _exit(3);
    if (read(control[0], &byte, 1) != 0) _exit(3);
    _exit(bad_box(next_serial, 0));
}

static void child_races(void)
{
    uint64_t mine = next_serial, x = mine * 0x9e3779b97f4a7c15ull;
    unsigned turns = (unsigned)(x >> 40) % 500000 * life;
    int bad = bad_box(mine, 0);
    serial = mine;
    for (unsigned k = 0; k < turns; k++) bad |= bad_box(mine, 1);
    _exit(bad);
}

static pid_t fork_as(pid_t wanted)
{
    struct clone_args args;
    for (;;) {
        memset(&args, 0, sizeof args);
        args.exit_signal = SIGCHLD;
        args.set_tid = (uintptr_t)&wanted;
        args.set_tid_size = 1;
        pid_t pid = syscall(SYS_clone3, &args, sizeof args);
        if (pid >= 0 || errno != EEXIST) return pid;
        sched_yield(); /* somebody else has the number for now */
    }
}

static pid_t fork_after(pid_t wanted)
{
    FILE *file = fopen("/proc/sys/kernel/ns_last_pid", "w");
    if (!file) return -1;
    fprintf(file, "%d", wanted - 1);
    fclose(file);
    return fork();
}

static pid_t begin(pid_t pid)
{
    char byte;
    if (pid == 0) child_waits();
    close(control[0]);
    if (read(began[0], &byte, 1) != 1) return -1;
    return pid;
}

int main(void)
{
    char line[128];
    pid_t child = 0;
    setvbuf(stdout, NULL, _IOFBF, 4096);
    if (pipe(began)) return 1;
    printf("ready %lx %lx\n", (unsigned long)&serial, (unsigned long)&box);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char command[16];
        long pid = 0, n = 0;
        life = 1;
        if (sscanf(line, "%15s %ld %ld %u", command, &pid, &n, &life) < 1) continue;
        if (!strcmp(command, "fork") || !strcmp(command, "forkas") || !strcmp(command, "lastpid")) {
            if (pipe(control)) return 1;
            next_serial++;
            child = begin(!strcmp(command, "fork")     ? fork()
                          : !strcmp(command, "forkas") ? fork_as((pid_t)pid)
                                                       : fork_after((pid_t)pid));
            if (!strcmp(command, "lastpid") && child != pid) {
                close(control[1]);
                waitpid(child, NULL, 0);
                child = 0;
            }
            printf("%d\n", child);
        } else if (!strcmp(command, "end")) {
            int status = -1;
            close(control[1]);
            waitpid(child, &status, 0);
            printf("%d\n", status);
        } else if (!strcmp(command, "race")) {
            struct pollfd input = {0, POLLIN, 0};
            long bad = 0, k = 0;
            for (; k < n && poll(&input, 1, 0) == 0; k++) {
                int status = -1;
                next_serial++;
                child = fork_as((pid_t)pid);
                if (child == 0) child_races();
                waitpid(child, &status, 0);
                bad += status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            }
            printf("raced %ld %ld\n", k, bad);
        }
        fflush(stdout);
    }
    return 0;
}
