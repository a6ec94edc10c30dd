/* A target that runs itself again and again, each time with its memory at the same addresses.
 *
 * Build it -static -no-pie and start it under `setarch -R`.
 *
 *   execer MODE STEP GENERATION
 *
 * MODE:  main     the leading thread calls execve
 *        thread   another thread does
 * STEP:  step     answers "ready A B W ok" (addresses of the generation, the box and the words;
 *                 whether all of it is as the linker left it) and runs itself at a line of input
 *        run      the same for generation 1; from then on it does not wait, lives for a moment
 *                 and runs itself, until its input ends: then it answers "end GENERATION"
 *        slow     as run, and lives 20 times as long
 *
 * The generation and the words are 0 in a new image, then the number of its generation. The box is
 * PRISTINE: only who knows the generation may write there, and (generation << 32 | TAG) only.
 * Anything else answers "bad GENERATION VALUE" at once.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PRISTINE 0x5afe5afe5afe5afeull
#define TAG 0xb0b0ull
#define NR_WORDS 4096

static volatile struct {
    uint64_t generation;
    uint64_t box;
    uint64_t words[NR_WORDS];
} image __attribute__((aligned(4096), section(".data"))) = {0, PRISTINE, {0}};

static char **arguments;

static void *run_again(void *unused)
{
    static char next[32];
    (void)unused;
    snprintf(next, sizeof next, "%08lx", (unsigned long)image.generation + 1);
    arguments[3] = next;
    execv("/proc/self/exe", arguments);
    dprintf(1, "bad exec\n");
    _exit(1);
}

static int pristine(void)
{
    if (image.generation != 0 || image.box != PRISTINE) return 0;
    for (int k = 0; k < NR_WORDS; k++)
        if (image.words[k] != 0) return 0;
    return 1;
}

static void check_box(uint64_t generation)
{
    uint64_t box = image.box;
    if (box == PRISTINE || box == (generation << 32 | TAG)) return;
    dprintf(1, "bad %lx %lx\n", (unsigned long)generation, (unsigned long)box);
    image.box = PRISTINE;
}

int main(int argc, char **argv)
{
    char byte;
    int whole = pristine();
    if (argc != 4) return 2;
    arguments = argv;
    uint64_t generation = strtoul(argv[3], NULL, 16);
    check_box(generation);
    for (int k = 0; k < NR_WORDS; k++) image.words[k] = generation;
    image.generation = generation;

    int stepping = !strcmp(argv[2], "step");
    if (stepping || generation == 1) {
        dprintf(1, "ready %lx %lx %lx %s\n", (unsigned long)&image.generation,
                (unsigned long)&image.box, (unsigned long)&image.words, whole ? "ok" : "touched");
        do
            if (read(0, &byte, 1) != 1) return 0;
        while (byte != '\n');
    } else {
        struct pollfd input = {0, POLLIN, 0};
        if (poll(&input, 1, 0) == 1) {
            dprintf(1, "end %lx\n", (unsigned long)generation);
            return 0;
        }
        if (!whole) check_box(generation);
        uint64_t x = generation * 0x9e3779b97f4a7c15ull;
        unsigned turns = (unsigned)(x >> 40) % 400000 * (strcmp(argv[2], "slow") ? 1 : 20);
        for (unsigned k = 0; k < turns; k++) check_box(generation);
    }
    check_box(generation);
    if (!strcmp(argv[1], "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, run_again, NULL);
        for (;;) check_box(generation);
    }
    run_again(NULL);
    return 1;
}
