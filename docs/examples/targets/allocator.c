/* A pool of blocks of one size, with a free list through the free blocks, and a program for it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BLOCKS 8
#define BLOCK_LEN 32

struct pool {
    uint32_t free_count;
    uint32_t guard; /* stays 0xfeedface: a write before the first block changes it */
    struct block *free;
    struct block {
        struct block *next; /* of a free block; a used one has data here */
        char rest[BLOCK_LEN - sizeof(void *)];
    } blocks[BLOCKS];
    uint8_t used[BLOCKS];
};

struct pool g_pool = {.guard = 0xfeedface};

static void begin(struct pool *pool)
{
    for (int k = BLOCKS - 1; k >= 0; k--) {
        pool->blocks[k].next = pool->free;
        pool->free = &pool->blocks[k];
        pool->free_count++;
    }
}

static struct block *get(struct pool *pool)
{
    struct block *block = pool->free;
    if (!block) return NULL;
    pool->free = block->next;
    pool->free_count--;
    pool->used[block - pool->blocks] = 1;
    return block;
}

static int put(struct pool *pool, long k)
{
    if (k < 0 || k >= BLOCKS || !pool->used[k]) return 0;
    pool->used[k] = 0;
    pool->blocks[k].next = pool->free;
    pool->free = &pool->blocks[k];
    pool->free_count++;
    return 1;
}

int main(void)
{
    char line[64];
    long k, n;
    begin(&g_pool);
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "get\n")) {
            struct block *block = get(&g_pool);
            printf("%ld\n", block ? (long)(block - g_pool.blocks) : -1L);
        } else if (sscanf(line, "put %ld", &k) == 1)
            puts(put(&g_pool, k) ? "ok" : "refused");
        else if (sscanf(line, "fill %ld %ld", &k, &n) == 2 && k >= 0 && k < BLOCKS) {
            memset(&g_pool.blocks[k], 'x', (size_t)n); /* as wrong as the caller */
            puts("ok");
        }
        fflush(stdout);
    }
    return 0;
}
