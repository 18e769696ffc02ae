# tests that check the house itself
house_scripts = %D%/includes.sh %D%/comments.sh %D%/library.sh %D%/header_cxx.sh %D%/manpages.sh %D%/format.sh %D%/install.sh %D%/dist.sh
TESTS += $(house_scripts) tests/house/header_c
EXTRA_DIST += $(house_scripts)
check_PROGRAMS += tests/house/header_c
tests_house_header_c_SOURCES = %D%/header_c.c
tests_house_header_c_LDADD = libkt.la
