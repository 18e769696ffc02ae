# tests: unit/api. fake_ktserve is the server's program over an engine without a model, for the scripts in tests/integration.
EXTRA_DIST += tests/unit/fake_kt.h
API_TEST_LIBS = serve/libapi.la src/metrics/libmetrics.la src/base/libbase.la $(JANSSON_LIBS) $(CMOCKA_LIBS)
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_metrics tests/unit/test_json_in tests/unit/test_stop tests/unit/test_sched tests/unit/test_api tests/unit/fake_ktserve
TESTS += tests/unit/test_metrics tests/unit/test_json_in tests/unit/test_stop tests/unit/test_sched tests/unit/test_api
tests_unit_test_metrics_SOURCES = %D%/test_metrics.c
tests_unit_test_metrics_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_metrics_LDADD = src/metrics/libmetrics.la src/base/libbase.la $(CMOCKA_LIBS)
tests_unit_test_json_in_SOURCES = %D%/test_json_in.c
tests_unit_test_json_in_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_json_in_LDADD = $(API_TEST_LIBS)
tests_unit_test_stop_SOURCES = %D%/test_stop.c
tests_unit_test_stop_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_stop_LDADD = $(API_TEST_LIBS)
tests_unit_test_sched_SOURCES = %D%/test_sched.c %D%/fake_kt.c
tests_unit_test_sched_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_sched_LDADD = $(API_TEST_LIBS)
tests_unit_test_api_SOURCES = %D%/test_api.c %D%/fake_kt.c tuner/report.c
tests_unit_test_api_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tuner
tests_unit_test_api_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_api_LDADD = serve/libapi.la serve/libhttp.la src/metrics/libmetrics.la src/base/libbase.la $(JANSSON_LIBS) $(EVENT_LIBS) $(CMOCKA_LIBS)
tests_unit_fake_ktserve_SOURCES = serve/main.c %D%/fake_kt.c
tests_unit_fake_ktserve_CFLAGS = $(AM_CFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_fake_ktserve_LDADD = serve/libapi.la serve/libhttp.la src/metrics/libmetrics.la src/base/libbase.la $(JANSSON_LIBS) $(EVENT_LIBS)
endif
