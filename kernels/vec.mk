# vector kernels: activations, norms, rope, attention, expert sums; ISA detection
