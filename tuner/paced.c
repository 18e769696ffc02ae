/* paced.c - see paced.h. Uses stdio only; called by the thread that runs the bench, whose worker
 * threads park while it waits.
 */
#include "paced.h"

#include <stdio.h>

bool paced_wait(void)
{
    int c;
    puts("ready");
    fflush(stdout);
    do
        c = getchar();
    while (c != '\n' && c != EOF);
    return c == '\n';
}
