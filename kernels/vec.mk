# vector kernels: activations, norms, rope, attention, expert sums; ISA detection
kernels_libkernels_la_SOURCES += %D%/isa.c
