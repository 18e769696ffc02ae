#!/bin/sh
# Make the configure script. Needs autoconf, automake, libtool, pkg-config.
set -e
cd "$(dirname "$0")"
mkdir -p build-aux
exec autoreconf -fi
