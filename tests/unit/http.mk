# tests of the HTTP layer: the parser by table, the server over loopback
EXTRA_DIST += tests/unit/http1_trace.h tests/unit/http_world.h
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_http1 tests/unit/test_http_server
TESTS += tests/unit/test_http1 tests/unit/test_http_server
tests_unit_test_http1_SOURCES = %D%/test_http1.c
tests_unit_test_http1_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_http1_LDADD = serve/libhttp.la src/base/libbase.la $(EVENT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_http_server_SOURCES = %D%/test_http_server.c
tests_unit_test_http_server_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS)
tests_unit_test_http_server_LDADD = serve/libhttp.la src/base/libbase.la $(EVENT_LIBS) $(CMOCKA_LIBS)
endif
