/* Nanoseconds on a clock that only goes forward. */
#include <stdint.h>
#include <time.h>

static inline int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}
