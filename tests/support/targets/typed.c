/* Types of every kind, variables, and threads that wait in known functions. */
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

enum colour { RED, GREEN = 5, BLUE = -2 };

struct point { double x, y; };

struct flags {
    unsigned ready : 1;
    int delta : 5;
    uint64_t wide : 40;
    unsigned char after;
    enum colour tint : 4;
};

struct node {
    struct node *next;
    uint32_t id;
    struct point at;
    char name[12];
    enum colour colour;
    union { int32_t whole; float real; uint8_t bytes[4]; } u;
    struct { short inner_a; short inner_b; };
    struct flags flags;
    int16_t grid[2][3];
    bool on;
    long double big;
    void (*call)(void);
    const char *text;
};

struct __attribute__((packed)) tight { char tag; uint64_t value; uint16_t end; };

typedef struct node node_t;

static void called(void) {}

node_t g_second = {
    .id = 20, .at = {3.5, -4}, .name = "second", .colour = BLUE, .u.real = 1.5f,
    .inner_a = -7, .inner_b = 8, .flags = {1, -3, 0x123456789a, 200, GREEN},
    .grid = {{1, 2, 3}, {-4, -5, -6}}, .on = true, .big = 2.25L, .call = called, .text = "words",
};
node_t g_first = {.next = &g_second, .id = 10, .name = "first", .colour = GREEN};
node_t *g_list = &g_first;
struct tight g_tight[3] = {{'a', 1, 2}, {'b', 0x1122334455667788, 3}, {'c', 5, 6}};
static int s_counter = 41;
unsigned g_index = 1;
__thread int t_own = 7;

static pthread_barrier_t ready;
static volatile int quiet;

unsigned long g_notes;

__attribute__((noinline)) static void note(const node_t *which) { g_notes += which->id; }

__attribute__((noinline)) static int wait_here(int depth, node_t *which)
{
    char byte;
    int left = depth;
    if (depth > 0)
        return wait_here(depth - 1, which) + 1;
    while (read(0, &byte, 1) > 0)
        note(which), left++;
    return left;
}

static void *worker(void *argument)
{
    long depth = (long)argument;
    pthread_barrier_wait(&ready);
    quiet += wait_here((int)depth, &g_second);
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    struct point here = {1.25, 2.5};
    pthread_barrier_init(&ready, NULL, 4);
    for (long k = 0; k < 2; k++)
        pthread_create(&threads[k], NULL, worker, (void *)(k + 2));
    s_counter++;
    pthread_t extra;
    pthread_create(&extra, NULL, worker, (void *)7L);
    quiet += (int)here.x;
    pthread_barrier_wait(&ready);
    printf("ready\n");
    fflush(stdout);
    quiet += wait_here(0, g_list) + (int)here.y;
    return 0;
}
