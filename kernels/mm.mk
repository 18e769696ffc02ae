# matrix kernels, packing, decoding, quantising
