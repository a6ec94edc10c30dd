/* Preloaded: notes each prctl(PR_SET_PTRACER) in the file that the variable NOTES names. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int prctl(int option, ...) {
    va_list rest;
    va_start(rest, option);
    unsigned long pid = va_arg(rest, unsigned long);
    va_end(rest);
    FILE *notes = option == PR_SET_PTRACER ? fopen(getenv("NOTES"), "a") : NULL;
    if (notes) {
        fprintf(notes, "%d %lu\n", (int)getpid(), pid);
        fclose(notes);
    }
    return 0;
}
