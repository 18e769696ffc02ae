# probe, show, verify, explain
kttune_CFLAGS += $(HWLOC_CFLAGS)
kttune_CPPFLAGS = $(AM_CPPFLAGS) -DKT_PLUGIN_DIR='"$(pkglibdir)"'
kttune_SOURCES += \
	%D%/cmd_probe.c %D%/cmd_show.c %D%/cmd_verify.c %D%/decide.c %D%/decide_rows.c %D%/decide_rows.h %D%/decide_streams.c %D%/decide_streams.h \
	%D%/measure.c %D%/measure.h %D%/measure_json.c \
	%D%/probe.h %D%/probe_common.c %D%/probe_expert.c %D%/probe_gpu.c %D%/probe_isa.c %D%/probe_mem.c %D%/probe_papi.c %D%/probe_sync.c \
	%D%/progress.c %D%/progress.h \
	%D%/selftest.c %D%/selftest.h \
	%D%/show.c %D%/show.h \
	%D%/stats.c %D%/stats.h
