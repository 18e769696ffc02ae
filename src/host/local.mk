# src/host
noinst_LTLIBRARIES += %D%/libhost.la
%C%_libhost_la_CFLAGS = $(ROOM_CFLAGS) $(HWLOC_CFLAGS)
%C%_libhost_la_SOURCES =
src_host_libhost_la_SOURCES += \
	%D%/cpuid.c \
	%D%/env.c \
	%D%/gpu_pci.c \
	%D%/host.c %D%/host.h %D%/host_int.h \
	%D%/limits.c \
	%D%/set.c \
	%D%/text.c \
	%D%/topo_hwloc.c \
	%D%/topo_memory.c \
	%D%/warn.c
