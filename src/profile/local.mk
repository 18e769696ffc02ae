# src/profile
noinst_LTLIBRARIES += %D%/libprofile.la
%C%_libprofile_la_CFLAGS = $(ROOM_CFLAGS)
%C%_libprofile_la_SOURCES =
src_profile_libprofile_la_CFLAGS += $(JANSSON_CFLAGS) $(PCRE2_CFLAGS)
src_profile_libprofile_la_SOURCES += \
	%D%/build.c \
	%D%/facts.c %D%/facts.h \
	%D%/fingerprint.c \
	%D%/match.c \
	%D%/profile.h \
	%D%/read.c \
	%D%/rehost.c \
	%D%/rules.c %D%/rules.h \
	%D%/schema.c %D%/schema.h \
	%D%/tree.h \
	%D%/tunings.c \
	%D%/write.c
nodist_src_profile_libprofile_la_SOURCES = %D%/host_schema.c

# The schema file is the only statement of the format's structure: the library carries its text.
CLEANFILES += %D%/host_schema.c
src/profile/host_schema.c: $(top_srcdir)/profiles/host.schema.json
	$(AM_V_GEN)$(MKDIR_P) $(@D) && { \
	  echo '/* host_schema.c - text of profiles/host.schema.json; made by the build, do not edit. */'; \
	  echo '#include "profile/schema.h"'; \
	  echo 'const unsigned char profile_schema_text[] = {'; \
	  od -An -v -tx1 $(top_srcdir)/profiles/host.schema.json | sed 's/\([0-9a-f][0-9a-f]\)/0x\1,/g'; \
	  echo '0};'; } > $@.tmp && mv $@.tmp $@
