# libkt: one convenience library per room, linked into libkt (shared, static). Programs link the rooms themselves.
include_HEADERS = %D%/kt.h
include src/base/local.mk
include src/host/local.mk
include src/model/local.mk
include src/metrics/local.mk
include src/profile/local.mk
include src/cost/local.mk
include src/plan/local.mk
include src/engine/local.mk

# Everything left of the engine, then the engine: in link order (users before what they use).
KT_BELOW_ENGINE = src/plan/libplan.la src/cost/libcost.la src/profile/libprofile.la src/host/libhost.la src/model/libmodel.la src/metrics/libmetrics.la \
	kernels/libkernels.la src/base/libbase.la
KT_ROOMS = src/engine/libengine.la $(KT_BELOW_ENGINE)
KT_DEPLIBS = $(JANSSON_LIBS) $(PCRE2_LIBS) $(UTF8PROC_LIBS) $(HWLOC_LIBS) $(NUMA_LIBS)

# ABI: current:revision:age. A release that changes kt.h's functions or structs raises current (and age when old programs still run); any other raises revision.
lib_LTLIBRARIES += libkt.la
libkt_la_SOURCES =
nodist_EXTRA_libkt_la_SOURCES = dummy.c
libkt_la_LIBADD = $(KT_ROOMS) $(KT_DEPLIBS)
libkt_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 -no-undefined
