# src/host
noinst_LTLIBRARIES += %D%/libhost.la
%C%_libhost_la_CFLAGS = $(STRICT_CFLAGS)
%C%_libhost_la_SOURCES =
src_host_libhost_la_SOURCES += %D%/host.h
src_host_libhost_la_CFLAGS += $(HWLOC_CFLAGS)
