# tests of src/model: containers, traits, weight map
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_model
TESTS += tests/unit/test_model
tests_unit_test_model_SOURCES = %D%/test_model.c %D%/model_files.h
tests_unit_test_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_model_LDADD = src/model/libmodel.la src/base/libbase.la $(KT_DEPLIBS) $(CMOCKA_LIBS) -lm
endif
