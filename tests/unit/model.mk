# tests of src/model: containers, traits, weight map
TESTS += %D%/test_file_commands.py
EXTRA_DIST += %D%/test_file_commands.py
if HAVE_CMOCKA
model_tests = tests/unit/test_gguf tests/unit/test_model tests/unit/test_safetensors
check_PROGRAMS += $(model_tests)
TESTS += $(model_tests)
model_test_libs = src/model/libmodel.la src/base/libbase.la $(KT_DEPLIBS) $(CMOCKA_LIBS) -lm
tests_unit_test_gguf_SOURCES = %D%/test_gguf.c %D%/model_files.h tests/fuzz/fuzz_model.c
tests_unit_test_gguf_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_gguf_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=mem_alloc,--wrap=mem_calloc,--wrap=mem_realloc
tests_unit_test_gguf_LDADD = $(model_test_libs)
tests_unit_test_model_SOURCES = %D%/test_model.c %D%/model_files.h
tests_unit_test_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_model_LDADD = $(model_test_libs)
tests_unit_test_safetensors_SOURCES = %D%/test_safetensors.c %D%/model_files.h
tests_unit_test_safetensors_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_safetensors_LDADD = $(model_test_libs)
endif
if ENABLE_FUZZ
noinst_PROGRAMS += tests/fuzz/fuzz_model
tests_fuzz_fuzz_model_SOURCES = tests/fuzz/fuzz_model.c $(src_model_libmodel_la_SOURCES) $(src_base_libbase_la_SOURCES)
tests_fuzz_fuzz_model_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(PCRE2_CFLAGS) $(UTF8PROC_CFLAGS) -DKT_LIBFUZZER -fsanitize=fuzzer
tests_fuzz_fuzz_model_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_model_LDADD = $(KT_DEPLIBS) -lm
endif
