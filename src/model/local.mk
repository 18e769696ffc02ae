# src/model
noinst_LTLIBRARIES += %D%/libmodel.la
%C%_libmodel_la_CFLAGS = $(ROOM_CFLAGS)
%C%_libmodel_la_SOURCES =
src_model_libmodel_la_SOURCES += %D%/gguf.h %D%/model.h %D%/tok.h
src_model_libmodel_la_CFLAGS += $(JANSSON_CFLAGS) $(PCRE2_CFLAGS) $(UTF8PROC_CFLAGS)
include src/model/files.mk
include src/model/tok.mk
