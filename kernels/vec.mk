# vector kernels: activations, norms, rope, attention, expert sums; ISA detection
kernels_libkernels_la_SOURCES += %D%/isa.c %D%/kv.c
kernels_libkern_ref_la_SOURCES += %D%/attn_scratch.h %D%/ref/vec_ref.h %D%/ref/vec_ref.c %D%/ref/attn_ref.c
kernels_libkern_avx2_la_SOURCES += %D%/avx2/vec_avx2.h %D%/avx2/vec_avx2.c %D%/avx2/attn_inner_avx2.h %D%/avx2/attn_codes_avx2.h %D%/avx2/attn_avx2.c
kernels_libkern_avx512_la_SOURCES += %D%/avx512/vec_avx512.h %D%/avx512/vec_avx512.c %D%/avx512/attn_inner_avx512.h %D%/avx512/attn_avx512.c %D%/avx512/attn_codes_avx512.c
kernels_libkern_avx512vnni_la_SOURCES += %D%/avx512vnni/attn_avx512vnni.c
