/* A value at the end of a chain of pointers, in memory whose addresses differ from run to run. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item { char name[24]; uint64_t value; };
struct bag { uint64_t count; struct item *items; };
struct player { char pad[0x38]; struct bag *bag; };
struct player *g_player;

int main(int argc, char **argv)
{
    /* Noise: the value's own place differs also within the heap. */
    int noise = argc > 1 ? atoi(argv[1]) : 0;
    for (int i = 0; i < noise; i++)
        if (!malloc(100 + i % 900)) return 1;
    g_player = calloc(1, sizeof *g_player);
    g_player->bag = calloc(1, sizeof *g_player->bag);
    if (noise % 2 && !malloc(noise)) return 1;
    g_player->bag->items = calloc(8, sizeof(struct item));
    uint64_t *value = &g_player->bag->items[3].value;
    *value = 1000 + (uint64_t)noise;
    printf("%p\n", (void *)value);
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        printf("%llu\n", (unsigned long long)*value);
        fflush(stdout);
    }
    return 0;
}
