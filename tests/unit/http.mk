# tests of the HTTP layer: the parser by table, connections and gate over loopback
EXTRA_DIST += tests/unit/http1_trace.h tests/unit/http_world.h
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_http1 tests/unit/test_http_server tests/unit/test_http_gate
TESTS += tests/unit/test_http1 tests/unit/test_http_server tests/unit/test_http_gate
tests_unit_test_http1_SOURCES = %D%/test_http1.c tests/fuzz/fuzz_http1.c tests/fuzz/fuzz_keys.c
tests_unit_test_http1_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_http1_LDADD = serve/libhttp.la src/base/libbase.la $(EVENT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_http_server_SOURCES = %D%/test_http_server.c
tests_unit_test_http_server_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS)
tests_unit_test_http_server_LDADD = serve/libhttp.la src/base/libbase.la $(EVENT_LIBS) $(CMOCKA_LIBS)
tests_unit_test_http_gate_SOURCES = %D%/test_http_gate.c
tests_unit_test_http_gate_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(EVENT_CFLAGS)
tests_unit_test_http_gate_LDADD = serve/libhttp.la src/base/libbase.la $(EVENT_LIBS) $(CMOCKA_LIBS)
endif
if ENABLE_FUZZ
noinst_PROGRAMS += tests/fuzz/fuzz_http1 tests/fuzz/fuzz_keys
tests_fuzz_fuzz_http1_SOURCES = tests/fuzz/fuzz_http1.c serve/http1.c src/base/strbuf.c src/base/mem.c
tests_fuzz_fuzz_http1_CFLAGS = $(AM_CFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_http1_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_keys_SOURCES = tests/fuzz/fuzz_keys.c serve/keys.c src/base/sha256.c src/base/mem.c
tests_fuzz_fuzz_keys_CFLAGS = $(AM_CFLAGS) -DKT_LIBFUZZER -fsanitize=fuzzer
tests_fuzz_fuzz_keys_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
endif
