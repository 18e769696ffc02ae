# src/engine
noinst_LTLIBRARIES += %D%/libengine.la
%C%_libengine_la_CFLAGS = $(STRICT_CFLAGS)
%C%_libengine_la_SOURCES =
