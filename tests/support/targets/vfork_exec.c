// The child of vfork runs in the memory of its parent until it execs, which it is told to do.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int go[2];
static char stack[65536] __attribute__((aligned(16)));

static int child(void *unused)
{
    char c;
    (void)unused;
    if (read(go[0], &c, 1) == 1)
        execl("/bin/sleep", "sleep", "1000", (char *)0);
    _exit(1);
}

int main(void)
{
    char line[16], path[64], name[16] = "";
    int pid;
    if (pipe2(go, O_CLOEXEC))
        return 1;
    // CLONE_VM without CLONE_VFORK: the parent goes on to talk while the child waits.
    pid = clone(child, stack + sizeof stack, CLONE_VM | SIGCHLD, 0);
    printf("%d\n", pid);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin) || write(go[1], "g", 1) != 1)
        return 2;
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    while (strncmp(name, "sleep", 5)) {
        FILE *file = fopen(path, "r");
        if (!file || !fgets(name, sizeof name, file))
            return 3;
        fclose(file);
    }
    puts("execed");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin))
        return 4;
    kill(pid, SIGKILL);
    waitpid(pid, 0, 0);
    return 0;
}
