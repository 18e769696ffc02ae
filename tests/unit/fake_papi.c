/* fake_papi.c - a counter library that can lie, loaded by test_papi. $FAKE_PAPI says how: good,
 * noevnt (lists, cannot add), zero, garbage, negative, one (only the first event counts), crash,
 * hang, version (refuses every version). It lists every event it is asked for, as real ones do.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int current;

static int mode(const char *name)
{
    const char *m = getenv("FAKE_PAPI");
    return m != NULL && strcmp(m, name) == 0;
}

int PAPI_library_init(int version);
int PAPI_create_eventset(int *set);
int PAPI_event_name_to_code(const char *name, int *code);
int PAPI_add_event(int set, int code);
int PAPI_remove_event(int set, int code);
int PAPI_start(int set);
int PAPI_stop(int set, long long *values);
const char *PAPI_strerror(int code);

int PAPI_library_init(int version)
{
    return !mode("version") && version == (7 << 24 | 1 << 16) ? version : -1;
}

int PAPI_create_eventset(int *set)
{
    *set = 1;
    return 0;
}

int PAPI_event_name_to_code(const char *name, int *code)
{
    *code = strcmp(name, "PAPI_TOT_CYC") == 0   ? 1
            : strcmp(name, "PAPI_TOT_INS") == 0 ? 2
            : strcmp(name, "PAPI_BR_INS") == 0  ? 3
                                                : 4;
    return 0;
}

int PAPI_add_event(int set, int code)
{
    (void)set;
    current = code;
    return mode("noevnt") || (mode("one") && code != 1) ? -7 : 0;
}

int PAPI_remove_event(int set, int code)
{
    (void)set;
    (void)code;
    return 0;
}

int PAPI_start(int set)
{
    (void)set;
    if (mode("crash"))
        abort();
    while (mode("hang"))
        pause();
    return 0;
}

int PAPI_stop(int set, long long *values)
{
    static const long long truth[] = {0, 1100000, 3000000, 1000000, 1100000};
    (void)set;
    values[0] = mode("zero")       ? 0
                : mode("garbage")  ? 123456789012345
                : mode("negative") ? -5
                                   : truth[current];
    return 0;
}

const char *PAPI_strerror(int code)
{
    return code == -7 ? "Event does not exist" : NULL;
}
