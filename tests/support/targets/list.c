/* A linked list on the heap, which tells what it holds itself, one line at a time.
 *
 *   list NODES
 *
 * It answers "ready HEAD", the address of the first node.
 *
 *   sum        answers the sum of all numbers
 *   node K     answers number, colour, level, name, x and y of the point, and weight of node K
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct point { int16_t x; int32_t y; };

struct node {
    uint32_t number;
    struct node *next;
    unsigned int colour : 3;
    int level : 7;
    unsigned int rest : 22; /* ctypes lets no other field begin within the unit */
    char name[12];
    struct point point;
    union { double weight; uint64_t bits; };
};

int main(int argc, char **argv)
{
    long n = argc > 1 ? atol(argv[1]) : 1, k;
    struct node *head = NULL, **link = &head, *at;
    char line[256];
    for (k = 0; k < n; k++) {
        at = calloc(1, sizeof *at);
        if (!at) return 1;
        at->number = (uint32_t)(k * 2654435761u);
        at->colour = k % 8;
        at->level = k % 128 - 64;
        snprintf(at->name, sizeof at->name, "node %d", (int)(k % 10000));
        at->point.x = (int16_t)-k;
        at->point.y = (int32_t)(k * 70000);
        at->weight = k / 4.0;
        *link = at;
        link = &at->next;
    }
    printf("ready %lx\n", (unsigned long)head);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "sum", 3)) {
            uint64_t sum = 0;
            for (at = head; at; at = at->next) sum += at->number;
            printf("%lu\n", (unsigned long)sum);
        } else if (sscanf(line, "node %ld", &k) == 1) {
            for (at = head; at && k--; at = at->next) ;
            if (!at) printf("none\n");
            else
                printf("%u %d %d %s %d %d %g\n", at->number, at->colour, at->level, at->name,
                       at->point.x, at->point.y, at->weight);
        } else {
            printf("error unknown\n");
        }
        fflush(stdout);
    }
    return 0;
}
