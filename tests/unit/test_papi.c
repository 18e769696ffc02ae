/* test_papi.c - the functional counter test against a library that lies in every known way, and the
 * loader of the CUDA plugin against files that are no plugin. Real hardware is not needed and not
 * looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tuner/probe.h"

static char library[1024];

static size_t events_of(const char *lie, double seconds, char reason[160])
{
    json_t *events = json_array();
    char version[32];
    setenv("FAKE_PAPI", lie, 1);
    assert_int_equal(papi_test(library, seconds, events, version, reason, NULL), 0);
    size_t n = json_array_size(events);
    json_decref(events);
    return n;
}

static void honest_library_counts(void **state)
{
    (void)state;
    char reason[160];
    assert_int_equal(events_of("good", 10, reason), 4);
    assert_string_equal(reason, "");
    assert_int_equal(events_of("one", 10, reason), 1);
    assert_string_equal(reason, "");
}

static void lies_are_refused(void **state)
{
    static const struct {
        const char *lie, *reason;
    } cases[] = {{"noevnt", "PAPI_TOT_CYC cannot be added: Event does not exist"},
                 {"zero", "PAPI_TOT_CYC counted 0"},
                 {"garbage", "PAPI_TOT_CYC counted 123456789012345 where about"},
                 {"negative", "PAPI_TOT_CYC counted -5"},
                 {"crash", "signal 6"},
                 {"version", "refuses every known version"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char reason[160];
        assert_int_equal(events_of(cases[i].lie, 10, reason), 0);
        if (strstr(reason, cases[i].reason) == NULL)
            fail_msg("%s: reason is \"%s\"", cases[i].lie, reason);
    }
}

static void hung_library_is_killed(void **state)
{
    (void)state;
    char reason[160];
    assert_int_equal(events_of("hang", 0.3, reason), 0);
    assert_non_null(strstr(reason, "killed after"));
}

static void absent_library_is_said(void **state)
{
    (void)state;
    json_t *events = json_array();
    char version[32], reason[160];
    assert_int_equal(papi_test("/nonexistent/libpapi.so", 10, events, version, reason, NULL), 0);
    assert_int_equal(json_array_size(events), 0);
    assert_string_equal(reason, "library not found");
    json_decref(events);
}

static void cuda_loader_gives_a_reason(void **state)
{
    (void)state;
    char reason[200] = "";
    gpu_loader_reason("/nonexistent/kt_cuda.so", reason, sizeof reason);
    assert_true(reason[0] != '\0');
    gpu_loader_reason(library, reason, sizeof reason); /* a shared object, but no plugin */
    assert_true(reason[0] != '\0');
}

int main(void)
{
    const char *build = getenv("KT_BUILDDIR");
    snprintf(library, sizeof library, "%s/tests/unit/fake_papi.so", build != NULL ? build : ".");
    if (access(library, R_OK) != 0) {
        fprintf(stderr, "%s was not built: this toolchain makes no shared objects\n", library);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_library_counts),      cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(hung_library_is_killed),     cmocka_unit_test(absent_library_is_said),
        cmocka_unit_test(cuda_loader_gives_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
