# tests: kernels/local
