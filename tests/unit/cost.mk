# tests of src/cost
if HAVE_CMOCKA
cost_tests = tests/unit/test_cost tests/unit/test_cost_fit
check_PROGRAMS += $(cost_tests)
TESTS += $(cost_tests)
tests_unit_test_cost_SOURCES = %D%/test_cost.c
tests_unit_test_cost_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_cost_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
tests_unit_test_cost_fit_SOURCES = %D%/test_cost_fit.c
tests_unit_test_cost_fit_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_cost_fit_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
