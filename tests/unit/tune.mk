# tests of the tuner's search
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_search
TESTS += tests/unit/test_search
tests_unit_test_search_SOURCES = %D%/test_search.c tuner/search.c tuner/search_final.c tuner/search_stats.c tuner/timer_virtual.c
tests_unit_test_search_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tuner
tests_unit_test_search_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_search_LDADD = src/base/libbase.la $(CMOCKA_LIBS)
endif
