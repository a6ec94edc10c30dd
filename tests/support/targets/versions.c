/* A library with symbols of two versions. The linker writes the older version of some of the names
 * first, and that of others last. The test makes the version script. */
#define BOTH(name)                                                                              \
    __attribute__((symver(#name "@V1"), noinline)) int old_##name(void) { return 1; }           \
    __attribute__((symver(#name "@@V2"), noinline)) int new_##name(void) { return 2; }

BOTH(a) BOTH(b) BOTH(c) BOTH(d) BOTH(e) BOTH(f) BOTH(g) BOTH(h)
