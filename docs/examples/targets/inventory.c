/* A linked list of what somebody carries; it waits until its input ends. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item {
    struct item *next;
    uint32_t id;
    float weight;
    char name[16];
};

struct item *g_items;

static void carry(uint32_t id, float weight, const char *name)
{
    struct item *item = calloc(1, sizeof *item);
    item->id = id;
    item->weight = weight;
    strncpy(item->name, name, sizeof item->name - 1);
    item->next = g_items;
    g_items = item;
}

int main(void)
{
    carry(3, 0.25f, "candle");
    carry(12, 7.5f, "rope, 30 m");
    carry(700, 1.0f, "\x1b[31mred ink");
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) continue;
    return 0;
}
