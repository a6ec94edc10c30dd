/* A target to be held: it changes its memory when told to, and so may a process beside it.
 *
 *   held BESIDE FD
 *
 * It answers "ready PRIVATE SHARED HEAD PID", in hex: a page of private and one of shared memory,
 * both zero; the first of 10,000 nodes of a linked list, {next, value}, scattered in memory; the
 * process beside it, or 0. Then it takes lines:
 *
 *   look A      answers the 8-byte word at A
 *   put A V     writes the word V at A
 *   walk        answers how many nodes the list has and the sum of their values
 *   event A V   writes V at A and raises SIGUSR1, which it ignores
 *   count A     counts the word at A up for ever, and takes no more lines
 *
 * BESIDE:  none     there is no other process
 *          fork     a child with memory of its own, but for the shared page
 *          refork   a child in the same address space (CLONE_VM)
 *          lost     the same; it is nobody's child, because its parent between has ended
 *          sibling  the same; it was made with CLONE_PARENT
 *
 * The process beside writes: from FD, a socket, it takes two words, an address and a value, writes
 * the value there and answers with the value. It ends with the socket.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NODES 10000

struct node { struct node *next; uint64_t value; };

static char stacks[2][65536] __attribute__((aligned(16)));
static int channel;

static int beside(void *unused)
{
    uint64_t words[2];
    (void)unused;
    while (recv(channel, words, sizeof words, MSG_WAITALL) == sizeof words) {
        *(volatile uint64_t *)words[0] = words[1];
        if (send(channel, &words[1], sizeof words[1], MSG_NOSIGNAL) < 0) break;
    }
    _exit(0);
}

static volatile pid_t made;

static int between(void *unused)
{
    (void)unused;
    made = clone(beside, stacks[1] + sizeof stacks[1], CLONE_VM, NULL);
    return made < 0;
}

static pid_t start(const char *kind)
{
    char *stack = stacks[0] + sizeof stacks[0];
    if (!strcmp(kind, "fork")) {
        pid_t pid = fork();
        if (pid == 0) beside(NULL);
        return pid;
    }
    if (!strcmp(kind, "refork")) return clone(beside, stack, CLONE_VM, NULL);
    if (!strcmp(kind, "sibling")) return clone(beside, stack, CLONE_VM | CLONE_PARENT, NULL);
    if (!strcmp(kind, "lost")) {
        pid_t pid = clone(between, stack, CLONE_VM, NULL);
        return pid < 0 || waitpid(pid, NULL, __WALL) < 0 ? -1 : made;
    }
    return 0;
}

static struct node *list(void)
{
    static struct node *nodes[NODES];
    uint64_t random = 88172645463325252ull;
    for (int k = 0; k < NODES; k++) {
        nodes[k] = malloc(sizeof **nodes + k % 300);
        if (!nodes[k]) exit(4);
    }
    for (int k = NODES - 1; k > 0; k--) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        int other = (int)(random % (uint64_t)(k + 1));
        struct node *node = nodes[k];
        nodes[k] = nodes[other], nodes[other] = node;
    }
    for (int k = 0; k < NODES; k++) {
        nodes[k]->next = k + 1 < NODES ? nodes[k + 1] : NULL;
        nodes[k]->value = (uint64_t)k * k + 1;
    }
    return nodes[0];
}

int main(int argc, char **argv)
{
    char line[256];
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* none outlives a test that was killed */
    signal(SIGUSR1, SIG_IGN);
    if (argc < 3) return 2;
    channel = atoi(argv[2]);
    int rw = PROT_READ | PROT_WRITE;
    void *private = mmap(NULL, 4096, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *shared = mmap(NULL, 4096, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (private == MAP_FAILED || shared == MAP_FAILED) return 3;
    struct node *head = list();
    pid_t pid = start(argv[1]);
    if (pid < 0) return 5;
    printf("ready %lx %lx %lx %x\n", (long)private, (long)shared, (long)head, (unsigned)pid);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char command[16] = "";
        unsigned long address = 0, value = 0;
        sscanf(line, "%15s %lx %lx", command, &address, &value);
        volatile uint64_t *word = (volatile uint64_t *)address;
        if (!strcmp(command, "look")) printf("%lx\n", (unsigned long)*word);
        else if (!strcmp(command, "put")) { *word = value; printf("ok\n"); }
        else if (!strcmp(command, "event")) {
            *word = value;
            raise(SIGUSR1);
            printf("ok\n");
        }
        else if (!strcmp(command, "walk")) {
            unsigned long n = 0, sum = 0;
            for (struct node *at = head; at; at = at->next) n++, sum += at->value;
            printf("%lu %lu\n", n, sum);
        }
        else if (!strcmp(command, "count")) {
            printf("ok\n");
            fflush(stdout);
            for (;;) (*word)++;
        }
        else printf("error unknown\n");
        fflush(stdout);
    }
    return 0;
}
