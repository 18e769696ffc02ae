# tests of kernels/
check_PROGRAMS += tests/kernels/test_blocks
TESTS += tests/kernels/test_blocks
tests_kernels_test_blocks_SOURCES = %D%/test_blocks.c
tests_kernels_test_blocks_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_kernels_test_blocks_LDADD = kernels/libkernels.la src/base/libbase.la $(JANSSON_LIBS)
check_PROGRAMS += tests/kernels/checkkern
tests_kernels_checkkern_SOURCES = %D%/checkkern.c %D%/checkkern.h %D%/check_mm.c %D%/check_bench.c
tests_kernels_checkkern_LDADD = kernels/libkernels.la src/base/libbase.la
if HAVE_AVX512VNNI
check_LTLIBRARIES += tests/kernels/libamx_emulated.la tests/kernels/libavxvnni_evex.la
tests_kernels_checkkern_LDADD += tests/kernels/libamx_emulated.la tests/kernels/libavxvnni_evex.la
endif
tests_kernels_libamx_emulated_la_SOURCES = kernels/amx/mm_gemm_amx.c kernels/amx/mm_i8_amx.c
tests_kernels_libamx_emulated_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AVX512VNNI_CFLAGS) -O3
tests_kernels_libamx_emulated_la_CPPFLAGS = $(AM_CPPFLAGS) -DKT_AMX_EMULATE
tests_kernels_libavxvnni_evex_la_SOURCES = kernels/avxvnni/mm_gemv_avxvnni.c kernels/avxvnni/mm_gemm_avxvnni.c \
	kernels/avxvnni/mm_i8_avxvnni.c
tests_kernels_libavxvnni_evex_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AVX512VNNI_CFLAGS) -O3
if HAVE_AVX512BF16
check_LTLIBRARIES += tests/kernels/libamx_bf16_emulated.la
endif
tests_kernels_libamx_bf16_emulated_la_SOURCES = kernels/amx/mm_bf16_amx.c
tests_kernels_libamx_bf16_emulated_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AVX512BF16_CFLAGS) -O3
tests_kernels_libamx_bf16_emulated_la_CPPFLAGS = $(AM_CPPFLAGS) -DKT_AMX_EMULATE
TESTS += tests/kernels/checkkern %D%/test_checkkern_catches.sh
EXTRA_DIST += %D%/test_checkkern_catches.sh
include tests/kernels/vec.mk
check_PROGRAMS += tests/kernels/test_mm_golden
TESTS += tests/kernels/test_mm_golden
tests_kernels_test_mm_golden_SOURCES = %D%/test_mm_golden.c %D%/mm_golden.h
tests_kernels_test_mm_golden_LDADD = kernels/libkernels.la src/base/libbase.la
EXTRA_DIST += %D%/mm_golden.py
if HAVE_CMOCKA
check_PROGRAMS += tests/kernels/test_levels
TESTS += tests/kernels/test_levels
tests_kernels_test_levels_SOURCES = %D%/test_levels.c
tests_kernels_test_levels_LDADD = kernels/libkernels.la src/base/libbase.la $(CMOCKA_LIBS)
tests_kernels_test_levels_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
check_PROGRAMS += tests/kernels/test_fast_bf16
TESTS += tests/kernels/test_fast_bf16
tests_kernels_test_fast_bf16_SOURCES = %D%/test_fast_bf16.c
tests_kernels_test_fast_bf16_LDADD = kernels/libkernels.la src/base/libbase.la $(CMOCKA_LIBS)
tests_kernels_test_fast_bf16_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
if HAVE_AVX512BF16
tests_kernels_test_fast_bf16_LDADD += tests/kernels/libamx_bf16_emulated.la
endif
endif
