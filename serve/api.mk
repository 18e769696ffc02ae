# API, scheduler, program
serve_libapi_la_SOURCES += \
	%D%/app.h \
	%D%/app_metrics.c %D%/app_metrics.h \
	%D%/bridge.c %D%/bridge.h \
	%D%/encode.c %D%/encode.h \
	%D%/engine_opts.h \
	%D%/engine_side.c %D%/engine_side.h \
	%D%/exchange.c %D%/exchange.h \
	%D%/json_in.c %D%/json_in.h \
	%D%/mapper_openai.c %D%/mapper_openai.h \
	%D%/options.c %D%/options.h \
	%D%/out_openai.c %D%/out_openai.h \
	%D%/params.c %D%/params.h \
	%D%/pick.c %D%/pick.h \
	%D%/placement_view.c %D%/placement_view.h \
	%D%/req.c %D%/req.h \
	%D%/routes.c %D%/routes.h \
	%D%/routes_admin.c \
	%D%/sched.c %D%/sched.h \
	%D%/seqrun.c %D%/seqrun.h \
	%D%/stop.c %D%/stop.h

bin_PROGRAMS += ktserve
ktserve_CFLAGS = $(STRICT_CFLAGS) $(EVENT_CFLAGS) $(JANSSON_CFLAGS)
ktserve_SOURCES = %D%/main.c
ktserve_LDADD = serve/libapi.la serve/libhttp.la $(KT_ROOMS) $(KT_DEPLIBS) $(EVENT_LIBS)
