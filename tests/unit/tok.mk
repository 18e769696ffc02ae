# tests of the tokenizer, chat shapes and sampling
EXTRA_DIST += %D%/data/tok_vectors.json %D%/data/make_tok_vectors.py
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_tok
TESTS += tests/unit/test_tok
tests_unit_test_tok_SOURCES = %D%/test_tok.c %D%/tok_files.h tests/fuzz/fuzz_tokenizer.c
tests_unit_test_tok_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_tok_LDADD = src/model/libmodel.la src/base/libbase.la $(KT_DEPLIBS) $(CMOCKA_LIBS) -lm
endif
if ENABLE_FUZZ
noinst_PROGRAMS += tests/fuzz/fuzz_tokenizer
tests_fuzz_fuzz_tokenizer_SOURCES = tests/fuzz/fuzz_tokenizer.c
tests_fuzz_fuzz_tokenizer_CFLAGS = $(AM_CFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_tokenizer_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_tokenizer_LDADD = src/model/libmodel.la src/base/libbase.la $(KT_DEPLIBS) -lm
endif
