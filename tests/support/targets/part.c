/* A library for facets to load. NAME, SIZE and VALUE make it one or another. */
#define PASTE(a, b) a##b
#define JOIN(a, b) PASTE(a, b)

#ifndef NAME
#define NAME part
#endif
#ifndef SIZE
#define SIZE 65536
#endif
#ifndef VALUE
#define VALUE 1
#endif

int JOIN(NAME, _value) = VALUE;
char JOIN(NAME, _room)[SIZE];
/* On pages of its own, without a file behind them. */
char JOIN(NAME, _far)[65536] __attribute__((aligned(8192)));
int part_common = VALUE;

#ifdef PAD
int JOIN(NAME, _pad)(void) { return VALUE * 3 + part_common; }
#endif

int JOIN(NAME, _turn)(int n) { return n * VALUE + JOIN(NAME, _value) + JOIN(NAME, _room)[n]; }
