# src/profile
noinst_LTLIBRARIES += %D%/libprofile.la
%C%_libprofile_la_CFLAGS = $(STRICT_CFLAGS)
%C%_libprofile_la_SOURCES =
src_profile_libprofile_la_CFLAGS += $(JANSSON_CFLAGS) $(PCRE2_CFLAGS)
src_profile_libprofile_la_SOURCES += %D%/profile.h
