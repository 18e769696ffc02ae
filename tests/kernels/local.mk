# tests of kernels/
check_PROGRAMS += tests/kernels/test_blocks
TESTS += tests/kernels/test_blocks
tests_kernels_test_blocks_SOURCES = %D%/test_blocks.c
tests_kernels_test_blocks_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_kernels_test_blocks_LDADD = kernels/libkernels.la src/base/libbase.la $(JANSSON_LIBS)
include tests/kernels/vec.mk
