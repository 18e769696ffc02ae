# src/cost
noinst_LTLIBRARIES += %D%/libcost.la
%C%_libcost_la_CFLAGS = $(ROOM_CFLAGS) $(JANSSON_CFLAGS)
%C%_libcost_la_SOURCES =
src_cost_libcost_la_SOURCES += \
	%D%/cost.h \
	%D%/layer_time.c \
	%D%/rates.c %D%/rates.h
