# matrix kernels, packing, decoding, quantising
kernels_libkernels_la_SOURCES += %D%/blocks.h %D%/decode.c %D%/pack.c %D%/pack.h %D%/quantise.c
kernels_libkern_ref_la_SOURCES += %D%/ref/mm_ref.c
