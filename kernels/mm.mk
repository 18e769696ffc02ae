# matrix kernels, packing, decoding, quantising
kernels_libkernels_la_SOURCES += %D%/blocks.h %D%/decode.c %D%/pack.c %D%/pack.h %D%/pack_panel.c %D%/quantise.c
kernels_libkern_ref_la_SOURCES += %D%/ref/mm_ref.c
kernels_libkern_avx2_la_SOURCES += %D%/avx2/mm256.h %D%/avx2/gemm256.h %D%/avx2/mm_gemv_avx2.c %D%/avx2/mm_gemm_avx2.c %D%/avx2/mm_plain_avx2.c \
	%D%/avx2/mm_fp8_avx2.c %D%/avx2/mm_i8_avx2.c
kernels_libkern_avx512_la_SOURCES += %D%/avx512/mm512.h %D%/avx512/wide512.h %D%/avx512/mm_gemv_avx512.c %D%/avx512/mm_gemm_avx512.c %D%/avx512/mm_plain_avx512.c \
	%D%/avx512/mm_fp8_avx512.c %D%/avx512/mm_i8_avx512.c
kernels_libkern_avx512vnni_la_SOURCES += %D%/avx512vnni/mm_gemv_avx512vnni.c %D%/avx512vnni/mm_gemm_avx512vnni.c \
	%D%/avx512vnni/mm_i8_avx512vnni.c
kernels_libkern_amx_la_SOURCES += %D%/amx/mm_gemm_amx.c %D%/amx/mm_i8_amx.c %D%/amx/mm_bf16_amx.c %D%/amx/tile.h
kernels_libkern_avxvnni_la_SOURCES += %D%/avxvnni/mm_gemv_avxvnni.c %D%/avxvnni/mm_gemm_avxvnni.c %D%/avxvnni/mm_i8_avxvnni.c
kernels_libkern_avx512bf16_la_SOURCES += %D%/avx512bf16/mm_gemm_bf16.c
