/* A program with something to look at, for the command: globals, a list on the heap, texts.
 *
 *   inc         g_counter goes up by one
 *   lives N     g_lives becomes N
 *   show        answers g_counter g_lives g_ratio
 *   run         a thread counts g_ticks up for ever
 *
 * It answers each line, and first of all with the address of g_counter.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
    struct node *next;
    uint32_t number;
    char name[12];
};

volatile uint32_t g_counter = 7;
volatile int32_t g_lives = 1234567;
volatile double g_ratio = 2.5;
volatile uint64_t g_ticks;
char g_name[32] = "a \033[31mred\033[0m name\n";
const char g_fixed[] = "this text can not be written";
struct node *g_list;
struct { uint32_t x; double y; char name[8]; } g_point = {3, 0.5, "point"};

static void *tick(void *unused)
{
    (void)unused;
    for (;;) g_ticks++;
    return 0;
}

int main(void)
{
    char line[256];
    static const char *names[] = {"first node", "second node", "third node"};
    for (int k = 2; k >= 0; k--) {
        struct node *node = malloc(sizeof *node);
        node->next = g_list;
        node->number = 100 + (uint32_t)k;
        strncpy(node->name, names[k], sizeof node->name);
        node->name[sizeof node->name - 1] = 0;
        g_list = node;
    }
    printf("%p\n", (void *)&g_counter);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        pthread_t thread;
        int n;
        if (!strcmp(line, "inc\n")) g_counter++;
        else if (sscanf(line, "lives %d", &n) == 1) g_lives = n;
        else if (!strcmp(line, "run\n")) pthread_create(&thread, 0, tick, 0);
        printf("%u %d %g\n", g_counter, g_lives, g_ratio);
        fflush(stdout);
    }
    return 0;
}
