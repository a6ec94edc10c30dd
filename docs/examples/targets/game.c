/* A game: gold that is spent, a world reached by pointers, a clock that ticks, and some text.
 *
 * It reads lines: "spend N" takes gold away, "heal" gives the player all of his health back;
 * to each it answers the gold, the health and the score. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct player {
    char name[16];
    int32_t health;
    double score;
};

struct world {
    uint64_t seed;
    struct player *player;
};

struct world *g_world;
uint64_t g_ticks;
static uint32_t *gold;

static void *tick(void *unused)
{
    (void)unused;
    for (;;) {
        __atomic_fetch_add(&g_ticks, 1, __ATOMIC_RELAXED);
        usleep(500);
    }
    return NULL;
}

int main(void)
{
    char line[64];
    pthread_t thread;
    g_world = calloc(1, sizeof *g_world);
    g_world->player = calloc(1, sizeof *g_world->player);
    strcpy(g_world->player->name, "Ada Lovelace");
    g_world->player->health = 17;
    g_world->player->score = 12.5;
    gold = malloc(sizeof *gold);
    *gold = 1337;
    char *hint = strdup("the treasure is under the old oak");
    pthread_create(&thread, NULL, tick, NULL);
    printf("%p %p\n", (void *)g_world->player, (void *)&g_world->player->score);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "spend ", 6)) *gold -= (uint32_t)atoi(line + 6);
        if (!strncmp(line, "heal", 4)) g_world->player->health = 100;
        printf("%u %d %g\n", *gold, g_world->player->health, g_world->player->score);
        fflush(stdout);
    }
    free(hint);
    return 0;
}
