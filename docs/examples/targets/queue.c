/* A queue of numbers in a ring, and a program that does with it what its input says. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CAPACITY 8

struct queue {
    uint32_t head, tail; /* how many were taken and put, ever; they wrap at 2^32 */
    uint64_t slots[CAPACITY];
};

struct queue g_queue;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int put(struct queue *queue, uint64_t item)
{
    if (queue->tail - queue->head == CAPACITY) return 0;
    queue->slots[queue->tail % CAPACITY] = item;
    queue->tail++;
    return 1;
}

static int take(struct queue *queue, uint64_t *item)
{
    if (queue->tail == queue->head) return 0;
    *item = queue->slots[queue->head % CAPACITY];
    queue->head++;
    return 1;
}

static void *drain(void *unused)
{
    uint64_t item;
    for (;;) {
        pthread_mutex_lock(&lock);
        take(&g_queue, &item);
        pthread_mutex_unlock(&lock);
        usleep(1000);
    }
    return unused;
}

int main(void)
{
    char line[64];
    uint64_t item;
    pthread_t thread;
    while (fgets(line, sizeof line, stdin)) {
        pthread_mutex_lock(&lock);
        if (sscanf(line, "put %" SCNu64, &item) == 1) puts(put(&g_queue, item) ? "ok" : "full");
        else if (!strcmp(line, "take\n"))
            take(&g_queue, &item) ? printf("%" PRIu64 "\n", item) : puts("empty");
        else if (!strcmp(line, "drain\n"))
            puts(pthread_create(&thread, NULL, drain, NULL) ? "failed" : "ok");
        pthread_mutex_unlock(&lock);
        fflush(stdout);
    }
    return 0;
}
