/* A program of 32 or 64 bits with memory at known places, texts and pointers of its own width.
 *
 * It answers with a line for each thing that it has, NAME and its address in hexadecimal, then
 * with "ready", and ends when its stdin does.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <uchar.h>
#include <unistd.h>

struct node { struct node *next; int id; };
struct node two = {0, 2}, one = {&two, 1};
struct node *g_list[2] = {&one, &two};
struct { char name[16]; char *at; } g_player = {"player-01 Mira", g_player.name};
struct { char name[16]; char *at; } g_umlaut = {"Gr\303\266\303\237e \342\202\254", g_umlaut.name};
struct mixed { uint8_t small; double ratio; uint16_t word; uint64_t big; void *next; size_t size; };
struct mixed g_mixed[2] = {{1, 1.5, 2, 3, &one, 77}, {4, 2.5, 5, 6, &two, 88}};
char16_t g_wide[] = u"Schl\u00fcssel-wide";
char32_t g_wider[] = U"\u041f\u0440\u0438\u0432\u0435\u0442-wider";
char *g_nameless;

static void put(const char *name, uintptr_t at, int value)
{
    int *p = mmap((void *)(at & ~(uintptr_t)4095), 8192, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    for (int k = 0; k < 2048; k++) p[k] = value;
    printf("%s %lx\n", name, (unsigned long)at);
}

#define TELL(name) printf(#name " %lx\n", (unsigned long)&name)

int main(void)
{
    char end;
    put("hex", 0x10000000, 111);
    put("decimal", 10000000, 222);
    put("letters", 0xa0ffe000, 333);
    put("digits", 0x7abcd000, 444);
    g_nameless = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *(int *)g_nameless = 0x51627384;
    printf("nameless %lx\n", (unsigned long)g_nameless);
    TELL(one); TELL(two); TELL(g_list); TELL(g_player); TELL(g_umlaut); TELL(g_mixed);
    TELL(g_wide); TELL(g_wider); TELL(g_nameless);
    puts("ready");
    fflush(stdout);
    return read(0, &end, 1) != 0;
}
