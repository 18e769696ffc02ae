# tests of the vector kernels; vec_golden.py writes vec_golden.h by hand, when the definition changes
tests_kernels_checkkern_SOURCES += %D%/check_vec.c %D%/check_vec.h %D%/check_attn.c %D%/check_vec_bench.c
EXTRA_DIST += %D%/vec_golden.py
if HAVE_CMOCKA
check_PROGRAMS += tests/kernels/test_vec
TESTS += tests/kernels/test_vec
tests_kernels_test_vec_SOURCES = %D%/test_vec.c %D%/vec_golden.h
tests_kernels_test_vec_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_kernels_test_vec_LDADD = kernels/libkernels.la src/base/libbase.la $(CMOCKA_LIBS)
endif
