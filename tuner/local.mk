# kttune
bin_PROGRAMS += kttune
kttune_CFLAGS = $(STRICT_CFLAGS) $(JANSSON_CFLAGS)
kttune_LDADD = $(KT_ROOMS) $(KT_DEPLIBS)
kttune_SOURCES = %D%/cmds.h %D%/main.c
include tuner/probe.mk
include tuner/files.mk
include tuner/engine.mk
include tuner/report.mk
include tuner/tune.mk
include tuner/plan.mk
