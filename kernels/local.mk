# Kernels: the table, and one convenience library per ISA with that ISA's flags. Nothing else is compiled with -m flags.
# -O3 here counts only where CFLAGS name no level: CFLAGS come later, and the default -O2 wins. Paired on Zen 4 the two differ by 0 to 3 % (GEMM of 11
# formats with AVX2 and AVX-VNNI, of 7 with AVX512: 1.00 to 1.01), so nothing is done to make it win.
noinst_LTLIBRARIES += %D%/libkern_ref.la %D%/libkernels.la
kernels_libkernels_la_CFLAGS = $(KERNEL_CFLAGS)
kernels_libkernels_la_SOURCES = %D%/kern.h %D%/tables.h %D%/table.c %D%/read_loop.c %D%/read_loop.h
kernels_libkernels_la_LIBADD = %D%/libkern_ref.la
kernels_libkern_ref_la_CFLAGS = $(KERNEL_CFLAGS)
kernels_libkern_ref_la_SOURCES =
if HAVE_AVX2
noinst_LTLIBRARIES += %D%/libkern_avx2.la
kernels_libkernels_la_LIBADD += %D%/libkern_avx2.la
endif
if HAVE_AVXVNNI
noinst_LTLIBRARIES += %D%/libkern_avxvnni.la
kernels_libkernels_la_LIBADD += %D%/libkern_avxvnni.la
endif
kernels_libkern_avxvnni_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AVXVNNI_CFLAGS) -O3
kernels_libkern_avxvnni_la_SOURCES =
if HAVE_AVX512
noinst_LTLIBRARIES += %D%/libkern_avx512.la
kernels_libkernels_la_LIBADD += %D%/libkern_avx512.la
endif
if HAVE_AVX512VNNI
noinst_LTLIBRARIES += %D%/libkern_avx512vnni.la
kernels_libkernels_la_LIBADD += %D%/libkern_avx512vnni.la
endif
kernels_libkern_avx512vnni_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AVX512VNNI_CFLAGS) -O3
kernels_libkern_avx512vnni_la_SOURCES =
if HAVE_AVX512BF16
noinst_LTLIBRARIES += %D%/libkern_avx512bf16.la
kernels_libkernels_la_LIBADD += %D%/libkern_avx512bf16.la
endif
kernels_libkern_avx512bf16_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AVX512BF16_CFLAGS) -O3
kernels_libkern_avx512bf16_la_SOURCES =
if HAVE_AMX
noinst_LTLIBRARIES += %D%/libkern_amx.la
kernels_libkernels_la_LIBADD += %D%/libkern_amx.la
endif
kernels_libkern_amx_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AMX_CFLAGS) -O3
kernels_libkern_amx_la_SOURCES =
kernels_libkern_avx2_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AVX2_CFLAGS) -O3
kernels_libkern_avx2_la_SOURCES =
kernels_libkern_avx512_la_CFLAGS = $(KERNEL_CFLAGS) $(KT_AVX512_CFLAGS) -O3
kernels_libkern_avx512_la_SOURCES =
include kernels/mm.mk
include kernels/vec.mk
