/* What the sanitizers have to find: a leak, and a read behind an array. */
#include <stdlib.h>

void leak(void) {
    char *volatile lost = malloc(12345);
    lost = NULL;
}

int overrun(int n) {
    char *volatile array = calloc(4, 1);
    return array[n];
}
