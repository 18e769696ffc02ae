# KT_WARNINGS: warning, floating-point and sanitizer flags in AM_CFLAGS; the user's CFLAGS stay last and untouched.
AC_DEFUN([KT_CFLAG], [
  AC_MSG_CHECKING([whether $CC accepts $2])
  kt_save_CFLAGS=$CFLAGS
  CFLAGS="$CFLAGS -Werror $2"
  AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])], [$1="[$]$1 $2"; AC_MSG_RESULT([yes])], [AC_MSG_RESULT([no])])
  CFLAGS=$kt_save_CFLAGS
])
AC_DEFUN([KT_WARNINGS], [
  KT_CFLAGS="-std=gnu11 -fvisibility=hidden"
  for f in -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wundef -Wvla -Wpointer-arith -Wwrite-strings -Wcast-qual -Wformat=2 \
           -Wimplicit-fallthrough -fno-math-errno -ffp-contract=off; do
    KT_CFLAG([KT_CFLAGS], [$f])
  done
  KT_STRICT_CFLAGS=
  for f in -Wconversion -Wno-sign-conversion -Wdouble-promotion; do
    KT_CFLAG([KT_STRICT_CFLAGS], [$f])
  done
  KT_LDFLAGS=
  AS_IF([test "x$enable_werror" = xyes], [KT_CFLAGS="$KT_CFLAGS -Werror"])
  AS_IF([test "x$enable_sanitizer" != xno], [
    KT_CFLAGS="$KT_CFLAGS -fsanitize=$enable_sanitizer -fno-omit-frame-pointer"
    KT_LDFLAGS="$KT_LDFLAGS -fsanitize=$enable_sanitizer"
    AC_DEFINE([KT_SANITIZED], [1], [a sanitizer is on])])
  AS_IF([test "x$enable_coverage" = xyes], [KT_CFLAGS="$KT_CFLAGS --coverage"; KT_LDFLAGS="$KT_LDFLAGS --coverage"])
  AC_SUBST([KT_CFLAGS])
  AC_SUBST([KT_STRICT_CFLAGS])
  AC_SUBST([KT_LDFLAGS])
])
