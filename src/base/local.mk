# src/base
noinst_LTLIBRARIES += %D%/libbase.la
%C%_libbase_la_CFLAGS = $(ROOM_CFLAGS)
%C%_libbase_la_SOURCES =
src_base_libbase_la_SOURCES += \
	%D%/bar.c %D%/bar.h \
	%D%/checked.h \
	%D%/clock.h \
	%D%/dtype.c %D%/dtype.h \
	%D%/file.c %D%/file.h \
	%D%/fp.h \
	%D%/json_out.c %D%/json_out.h \
	%D%/log.c %D%/log.h \
	%D%/mem.c %D%/mem.h \
	%D%/place.c %D%/place.h \
	%D%/sha256.c %D%/sha256.h \
	%D%/status.c %D%/status.h \
	%D%/strbuf.c %D%/strbuf.h \
	%D%/sum64.c %D%/sum64.h \
	%D%/sync_time.c %D%/sync_time.h \
	%D%/team.c %D%/team.h
