/* decide_streams.c - see decide_streams.h. A vote for one stream, or for another level, leaves the
 * others with their rank: an analogy may only carry what no format contradicts.
 */
#include "decide_streams.h"

#include <stdio.h>
#include <string.h>

bool decide_streams(const struct streams_vote *v, size_t n, char *why, size_t size)
{
    int used = snprintf(why, size, "not timed; by analogy with ");
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(v[i].own);
        if (strncmp(v[i].chosen, v[i].own, len) != 0 ||
            strcmp(v[i].chosen + len, STREAMS_FOUR) != 0)
            return false;
        if (used > 0 && (size_t)used < size)
            used += snprintf(why + used, size - (size_t)used, "%s%s",
                             i == 0       ? ""
                             : i + 1 == n ? " and "
                                          : ", ",
                             v[i].format);
    }
    if (used > 0 && (size_t)used < size)
        (void)snprintf(why + used, size - (size_t)used,
                       ", where four address streams are proved faster than one");
    return n > 0;
}
