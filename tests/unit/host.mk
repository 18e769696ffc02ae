# tests: unit/host
if HAVE_CMOCKA
host_tests = %D%/test_limits %D%/test_plan %D%/test_topology
check_PROGRAMS += $(host_tests)
TESTS += $(host_tests)
host_test_libs = src/plan/libplan.la src/host/libhost.la src/base/libbase.la $(HWLOC_LIBS) $(CMOCKA_LIBS)
tests_unit_test_limits_SOURCES = %D%/test_limits.c
tests_unit_test_limits_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_limits_LDADD = $(host_test_libs)
tests_unit_test_plan_SOURCES = %D%/test_plan.c
tests_unit_test_plan_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_plan_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
tests_unit_test_topology_SOURCES = %D%/test_topology.c
tests_unit_test_topology_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_topology_LDADD = $(host_test_libs)
endif
