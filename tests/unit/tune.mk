# tests of the tuner's search
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_search tests/unit/test_replay tests/unit/test_tune_state
TESTS += tests/unit/test_search tests/unit/test_replay tests/unit/test_tune_state
tests_unit_test_tune_state_SOURCES = %D%/test_tune_state.c tuner/search.c tuner/search_final.c tuner/search_stats.c tuner/space.c \
	tuner/timer_journal.c tuner/timer_replay.c tuner/timer_virtual.c tuner/tune_state.c
tests_unit_test_tune_state_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tuner
tests_unit_test_tune_state_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_tune_state_LDADD = src/base/libbase.la $(JANSSON_LIBS) $(CMOCKA_LIBS)
tests_unit_test_search_SOURCES = %D%/test_search.c tuner/search.c tuner/search_final.c tuner/search_stats.c tuner/timer_virtual.c
tests_unit_test_search_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tuner
tests_unit_test_search_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_search_LDADD = src/base/libbase.la $(CMOCKA_LIBS)
tests_unit_test_replay_SOURCES = %D%/test_replay.c tuner/regret.c tuner/replay_run.c tuner/search.c tuner/search_final.c tuner/search_stats.c tuner/space.c \
	tuner/timer_journal.c tuner/timer_replay.c tuner/timer_virtual.c tuner/tune_state.c
tests_unit_test_replay_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tuner
tests_unit_test_replay_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_replay_LDADD = src/base/libbase.la $(JANSSON_LIBS) $(CMOCKA_LIBS)
endif
# Timing tables recorded by kttune tune --record on a virtual machine with two AMD Zen 4 cores.
EXTRA_DIST += %D%/data/replay_decode.json %D%/data/replay_prefill.json
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_tuned tests/unit/test_outer
TESTS += tests/unit/test_tuned tests/unit/test_outer
tests_unit_test_outer_SOURCES = %D%/test_outer.c tuner/outer.c tuner/search.c tuner/search_final.c tuner/search_stats.c tuner/space.c tuner/timer_virtual.c \
	tuner/decide_rows.c tuner/decide_streams.c tuner/tune_layout.c tuner/tune_prune.c
tests_unit_test_outer_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tuner
tests_unit_test_outer_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_outer_LDADD = $(KT_ROOMS) $(KT_DEPLIBS) $(CMOCKA_LIBS)
tests_unit_test_tuned_SOURCES = %D%/test_tuned.c
tests_unit_test_tuned_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_tuned_LDADD = $(KT_ROOMS) $(KT_DEPLIBS) $(CMOCKA_LIBS)
endif
TESTS += tests/integration/test_tune.sh
EXTRA_DIST += tests/integration/test_tune.sh
