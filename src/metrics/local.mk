# src/metrics
noinst_LTLIBRARIES += %D%/libmetrics.la
%C%_libmetrics_la_CFLAGS = $(ROOM_CFLAGS)
%C%_libmetrics_la_SOURCES = %D%/metrics.c %D%/metrics.h
