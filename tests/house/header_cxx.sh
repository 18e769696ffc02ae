#!/bin/sh
# header_cxx.sh - kt.h compiles alone as C++, with warnings as errors.
set -u
command -v "${CXX:-g++}" >/dev/null 2>&1 || { echo "no C++ compiler"; exit 77; }
printf '#include <kt.h>\nint main() { return kt_version() == nullptr; }\n' |
    "${CXX:-g++}" -std=c++11 -Wall -Wextra -Werror -fsyntax-only -I "${KT_SRCDIR:-.}/src" -x c++ - && echo "kt.h is valid C++11"
