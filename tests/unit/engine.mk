# tests of src/engine through kt.h
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_engine
TESTS += tests/unit/test_engine
tests_unit_test_engine_SOURCES = %D%/test_engine.c
tests_unit_test_engine_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_engine_LDADD = $(KT_ROOMS) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_engine_pools
TESTS += tests/unit/test_engine_pools
tests_unit_test_engine_pools_SOURCES = %D%/test_engine_pools.c
tests_unit_test_engine_pools_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_engine_pools_LDADD = $(KT_ROOMS) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_engine_numeric
TESTS += tests/unit/test_engine_numeric
tests_unit_test_engine_numeric_SOURCES = %D%/test_engine_numeric.c
tests_unit_test_engine_numeric_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_engine_numeric_LDADD = $(KT_ROOMS) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_moe_op
TESTS += tests/unit/test_moe_op
tests_unit_test_moe_op_SOURCES = %D%/test_moe_op.c
tests_unit_test_moe_op_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_moe_op_LDADD = $(KT_ROOMS) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_bench_args
TESTS += tests/unit/test_bench_args
tests_unit_test_bench_args_SOURCES = %D%/test_bench_args.c tuner/bench_args.c tuner/bench_rounds.c tuner/measure.c tuner/measure_json.c tuner/paced.c \
	tuner/stats.c
tests_unit_test_bench_args_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_bench_args_LDADD = $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_bench_moe
TESTS += tests/unit/test_bench_moe
tests_unit_test_bench_moe_SOURCES = %D%/test_bench_moe.c tuner/bench_moe_ids.c tuner/measure.c tuner/measure_json.c tuner/stats.c
tests_unit_test_bench_moe_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_bench_moe_LDADD = src/base/libbase.la $(JANSSON_LIBS) $(CMOCKA_LIBS) -lm
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_pack_cache
TESTS += tests/unit/test_pack_cache
tests_unit_test_pack_cache_SOURCES = %D%/test_pack_cache.c
tests_unit_test_pack_cache_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_pack_cache_LDADD = $(KT_ROOMS) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_fast_router
TESTS += tests/unit/test_fast_router
tests_unit_test_fast_router_SOURCES = %D%/test_fast_router.c
tests_unit_test_fast_router_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_fast_router_LDADD = $(KT_ROOMS) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
