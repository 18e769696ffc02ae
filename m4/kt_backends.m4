# KT_WITH_PAPI, KT_WITH_CUDA: back ends that programs open at run time. auto: use what is there and say so; yes and missing: error; no: off.
AC_DEFUN([KT_WITH_PAPI], [
  AC_ARG_WITH([papi], [AS_HELP_STRING([--with-papi=auto|yes|no], [hardware counters through PAPI, opened at run time (auto)])], [], [with_papi=auto])
  kt_papi=no
  AS_IF([test "x$with_papi" != xno], [AC_CHECK_HEADER([papi.h], [kt_papi=yes])])
  AS_IF([test "x$with_papi" = xyes && test "x$kt_papi" = xno], [AC_MSG_ERROR([--with-papi=yes, but papi.h was not found: install libpapi-dev])])
  AS_IF([test "x$kt_papi" = xyes], [AC_DEFINE([KT_PAPI], [1], [PAPI headers are there])])
])
AC_DEFUN([KT_WITH_CUDA], [
  AC_ARG_WITH([cuda], [AS_HELP_STRING([--with-cuda=auto|yes|no|DIR], [CUDA toolkit for the plugin that programs load at run time (auto)])], [], [with_cuda=auto])
  kt_cuda=no
  CUDA_DIR=
  AS_IF([test "x$with_cuda" != xno], [
    AS_CASE([$with_cuda], [auto|yes], [
      AC_PATH_PROG([NVCC], [nvcc], [], [$PATH:/usr/local/cuda/bin])
      AS_IF([test -n "$NVCC"], [CUDA_DIR=`dirname "\`dirname "$NVCC"\`"`])],
      [CUDA_DIR=$with_cuda
       AC_PATH_PROG([NVCC], [nvcc], [], [$with_cuda/bin])])
    AS_IF([test -n "$NVCC" && test -f "$CUDA_DIR/include/cuda_runtime.h"], [
      kt_nvcc_version=`"$NVCC" --version 2>/dev/null | sed -n 's/.*release \(@<:@0-9@:>@*\.@<:@0-9@:>@*\).*/\1/p'`
      AS_IF([test -n "$kt_nvcc_version"], [kt_cuda="toolkit $kt_nvcc_version in $CUDA_DIR (no CUDA kernels in this version)"])])
    AS_IF([test "x$kt_cuda" = xno && test "x$with_cuda" != xauto],
      [AC_MSG_ERROR([--with-cuda=$with_cuda, but nvcc with cuda_runtime.h was not found: install the CUDA toolkit or give its directory])])
  ])
])
