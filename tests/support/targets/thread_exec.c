// A thread waits for a line and then execs cat; the leader waits for ever.
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void *become(void *unused)
{
    char c;
    if (read(0, &c, 1) == 1)
        execl("/bin/cat", "cat", (char *)0);
    _exit(1);
    return unused;
}

int main(void)
{
    pthread_t thread;
    if (pthread_create(&thread, 0, become, 0))
        return 1;
    puts("ready");
    fflush(stdout);
    for (;;)
        pause();
}
