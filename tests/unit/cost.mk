# tests of src/cost and of what it prices: shapes of models
if HAVE_CMOCKA
cost_tests = tests/unit/test_cost tests/unit/test_cost_fit tests/unit/test_plan_model tests/unit/test_shape
check_PROGRAMS += $(cost_tests)
TESTS += $(cost_tests)
tests_unit_test_cost_SOURCES = %D%/test_cost.c
tests_unit_test_cost_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_cost_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
tests_unit_test_cost_fit_SOURCES = %D%/test_cost_fit.c
tests_unit_test_cost_fit_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_cost_fit_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
tests_unit_test_shape_SOURCES = %D%/test_shape.c
tests_unit_test_shape_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_shape_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
tests_unit_test_plan_model_SOURCES = %D%/test_plan_model.c tuner/plan_args.c tuner/plan_tuned.c
tests_unit_test_plan_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_plan_model_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
TESTS += tests/integration/test_plan.sh tests/integration/test_remedies.py
EXTRA_DIST += tests/integration/test_plan.sh tests/integration/test_remedies.py
