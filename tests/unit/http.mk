# tests of the HTTP layer: the parser by table, the server over loopback, and the fuzz target with its replay driver
EXTRA_DIST += tests/unit/http1_trace.h
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_http1
TESTS += tests/unit/test_http1
tests_unit_test_http1_SOURCES = %D%/test_http1.c
tests_unit_test_http1_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_http1_LDADD = serve/libhttp.la src/base/libbase.la $(EVENT_LIBS) $(CMOCKA_LIBS)
endif
