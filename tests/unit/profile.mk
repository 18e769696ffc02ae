# tests of src/profile and of the measuring parts of tuner
EXTRA_DIST += %D%/fake_papi.c
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_profile tests/unit/test_stats tests/unit/test_papi
TESTS += tests/unit/test_profile tests/unit/test_stats tests/unit/test_papi
tests_unit_test_profile_SOURCES = %D%/test_profile.c
tests_unit_test_profile_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_profile_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
tests_unit_test_stats_SOURCES = %D%/test_stats.c tuner/measure.c tuner/measure_json.c tuner/stats.c
tests_unit_test_stats_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_stats_LDADD = src/base/libbase.la $(JANSSON_LIBS) $(CMOCKA_LIBS)
tests_unit_test_papi_SOURCES = %D%/test_papi.c tuner/measure.c tuner/measure_json.c tuner/stats.c tuner/probe_common.c tuner/probe_gpu.c \
	tuner/probe_papi.c
tests_unit_test_papi_CPPFLAGS = $(AM_CPPFLAGS) -DKT_PLUGIN_DIR='"$(pkglibdir)"'
tests_unit_test_papi_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_papi_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
# A plain shared object, also where libtool builds static libraries only. Where it cannot be made the test skips.
check_DATA = tests/unit/fake_papi.so
CLEANFILES += tests/unit/fake_papi.so
tests/unit/fake_papi.so: tests/unit/fake_papi.c
	$(AM_V_GEN)$(MKDIR_P) $(@D) && $(CC) -shared -fPIC -o $@ $(srcdir)/tests/unit/fake_papi.c || echo 'cannot make a shared object; test_papi will skip'
endif
TESTS += tests/integration/test_probe.sh
EXTRA_DIST += tests/integration/test_probe.sh
