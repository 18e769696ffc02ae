# KT_ISA_CHECK: find the compiler flags of each kernel ISA by compiling an intrinsic, not by trusting the flag.
# Sets KT_{AVX2,AVXVNNI,AVX512,AVX512VNNI,AVX512BF16,AMX}_CFLAGS, conditionals HAVE_{..}, defines KT_HAVE_{..} (0 or 1).
AC_DEFUN([KT_ISA_TRY], [
  AC_ARG_ENABLE([$1], [AS_HELP_STRING([--disable-$1], [leave out the $2 kernels])], [], [enable_$1=auto])
  kt_have_$1=no
  AS_IF([test "x$enable_$1" != xno], [
    AC_MSG_CHECKING([for $2 kernels ($3)])
    kt_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS $3"
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <immintrin.h>]], [[$4]])], [kt_have_$1=yes])
    CFLAGS=$kt_save_CFLAGS
    AC_MSG_RESULT([$kt_have_$1])
    AS_IF([test "x$enable_$1" = xyes && test "x$kt_have_$1" = xno],
      [AC_MSG_ERROR([--enable-$1 was given, but $CC cannot compile $2 intrinsics])])
  ])
])
AC_DEFUN([KT_ISA_CHECK], [
  AC_REQUIRE([AC_CANONICAL_HOST])
  KT_ISA_TRY([avx2], [AVX2], [-mavx2 -mfma -mf16c],
    [__m256 a = _mm256_setzero_ps(); a = _mm256_fmadd_ps(a, a, _mm256_cvtph_ps(_mm_setzero_si128())); return (int)_mm256_cvtss_f32(a);])
  KT_ISA_TRY([avxvnni], [AVX-VNNI], [-mavx2 -mfma -mf16c -mavxvnni],
    [__m256i a = _mm256_setzero_si256(); a = _mm256_dpbusd_avx_epi32(a, a, a); return _mm256_extract_epi32(a, 0);])
  KT_ISA_TRY([avx512], [AVX512], [-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl],
    [__m512i a = _mm512_setzero_si512(); a = _mm512_maddubs_epi16(a, a); return _mm512_reduce_add_epi32(a);])
  KT_ISA_TRY([avx512vnni], [AVX512-VNNI], [-mavx512f -mavx512bw -mavx512vl -mavx512vnni],
    [__m512i a = _mm512_setzero_si512(); a = _mm512_dpbusd_epi32(a, a, a); return _mm512_reduce_add_epi32(a);])
  AS_IF([test "x$kt_have_avx512" = xno], [kt_have_avx512vnni=no])
  KT_ISA_TRY([avx512bf16], [AVX512-BF16], [-mavx512f -mavx512bw -mavx512vl -mavx512bf16],
    [__m512 a = _mm512_setzero_ps(); __m512bh b = _mm512_cvtne2ps_pbh(a, a); return (int)_mm512_reduce_add_ps(_mm512_dpbf16_ps(a, b, b));])
  AS_IF([test "x$kt_have_avx512" = xno], [kt_have_avx512bf16=no])
  KT_ISA_TRY([amx], [AMX], [-mavx512f -mamx-tile -mamx-int8 -mamx-bf16],
    [_tile_zero(0); _tile_dpbssd(0, 1, 2); _tile_dpbsud(0, 1, 2); _tile_dpbf16ps(0, 1, 2); _tile_release(); return 0;])
  # they start from the helpers of AVX512-VNNI and AVX512-BF16 files
  AS_IF([test "x$kt_have_avx512vnni" = xno || test "x$kt_have_avx512bf16" = xno], [kt_have_amx=no])
  KT_AVX2_CFLAGS="-mavx2 -mfma -mf16c"
  KT_AVXVNNI_CFLAGS="$KT_AVX2_CFLAGS -mavxvnni"
  AC_SUBST([KT_AVXVNNI_CFLAGS])
  KT_AVX512_CFLAGS="-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512"
  KT_AVX512VNNI_CFLAGS="$KT_AVX512_CFLAGS -mavx512vnni"
  AC_SUBST([KT_AVX512VNNI_CFLAGS])
  KT_AMX_CFLAGS="$KT_AVX512VNNI_CFLAGS -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16"
  AC_SUBST([KT_AMX_CFLAGS])
  KT_AVX512BF16_CFLAGS="$KT_AVX512_CFLAGS -mavx512bf16"
  AC_SUBST([KT_AVX512BF16_CFLAGS])
  AC_SUBST([KT_AVX2_CFLAGS])
  AC_SUBST([KT_AVX512_CFLAGS])
  AM_CONDITIONAL([HAVE_AVX2], [test "x$kt_have_avx2" = xyes])
  AM_CONDITIONAL([HAVE_AVXVNNI], [test "x$kt_have_avxvnni" = xyes])
  AM_CONDITIONAL([HAVE_AVX512BF16], [test "x$kt_have_avx512bf16" = xyes])
  AM_CONDITIONAL([HAVE_AMX], [test "x$kt_have_amx" = xyes])
  AM_CONDITIONAL([HAVE_AVX512VNNI], [test "x$kt_have_avx512vnni" = xyes])
  AM_CONDITIONAL([HAVE_AVX512], [test "x$kt_have_avx512" = xyes])
  AS_IF([test "x$kt_have_avx2" = xyes], [kt_v=1], [kt_v=0])
  AC_DEFINE_UNQUOTED([KT_HAVE_AVX2], [$kt_v], [AVX2 kernels are built])
  AS_IF([test "x$kt_have_avx512" = xyes], [kt_v=1], [kt_v=0])
  AC_DEFINE_UNQUOTED([KT_HAVE_AVX512], [$kt_v], [AVX512 kernels are built])
  AS_IF([test "x$kt_have_avx512vnni" = xyes], [kt_v=1], [kt_v=0])
  AC_DEFINE_UNQUOTED([KT_HAVE_AVX512VNNI], [$kt_v], [AVX512-VNNI kernels are built])
  AS_IF([test "x$kt_have_avxvnni" = xyes], [kt_v=1], [kt_v=0])
  AC_DEFINE_UNQUOTED([KT_HAVE_AVXVNNI], [$kt_v], [AVX-VNNI kernels are built])
  AS_IF([test "x$kt_have_avx512bf16" = xyes], [kt_v=1], [kt_v=0])
  AC_DEFINE_UNQUOTED([KT_HAVE_AVX512BF16], [$kt_v], [AVX512-BF16 kernels are built])
  AS_IF([test "x$kt_have_amx" = xyes], [kt_v=1], [kt_v=0])
  AC_DEFINE_UNQUOTED([KT_HAVE_AMX], [$kt_v], [AMX kernels are built])
])
