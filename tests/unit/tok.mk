# tests of the tokenizer, chat shapes and sampling
EXTRA_DIST += %D%/data/tok_vectors.json %D%/data/make_tok_vectors.py
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/test_tok
TESTS += tests/unit/test_tok
tests_unit_test_tok_SOURCES = %D%/test_tok.c %D%/tok_files.h tests/fuzz/fuzz_tokenizer.c
tests_unit_test_tok_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_tok_LDADD = src/model/libmodel.la src/base/libbase.la $(KT_DEPLIBS) $(CMOCKA_LIBS) -lm

check_PROGRAMS += tests/unit/test_tok_gguf
TESTS += tests/unit/test_tok_gguf
tests_unit_test_tok_gguf_SOURCES = %D%/test_tok_gguf.c %D%/tok_files.h
tests_unit_test_tok_gguf_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_test_tok_gguf_LDADD = src/model/libmodel.la src/base/libbase.la $(KT_DEPLIBS) $(CMOCKA_LIBS) -lm

check_PROGRAMS += tests/unit/test_tok_vocab
TESTS += tests/unit/test_tok_vocab
tests_unit_test_tok_vocab_SOURCES = %D%/test_tok_vocab.c %D%/model_files.h
tests_unit_test_tok_vocab_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_tok_vocab_LDADD = src/model/libmodel.la src/base/libbase.la $(KT_DEPLIBS) $(CMOCKA_LIBS) -lm

check_PROGRAMS += tests/unit/test_chat
TESTS += tests/unit/test_chat
tests_unit_test_chat_SOURCES = %D%/test_chat.c %D%/tok_files.h
tests_unit_test_chat_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_chat_LDADD = src/model/libmodel.la src/base/libbase.la $(KT_DEPLIBS) $(CMOCKA_LIBS) -lm

check_PROGRAMS += tests/unit/test_sample
TESTS += tests/unit/test_sample
tests_unit_test_sample_SOURCES = %D%/test_sample.c
tests_unit_test_sample_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_test_sample_LDADD = src/engine/libengine.la $(KT_BELOW_ENGINE) $(KT_DEPLIBS) $(CMOCKA_LIBS) -lm
endif
if ENABLE_FUZZ
noinst_PROGRAMS += tests/fuzz/fuzz_tokenizer
tests_fuzz_fuzz_tokenizer_SOURCES = tests/fuzz/fuzz_tokenizer.c $(src_model_libmodel_la_SOURCES) $(src_base_libbase_la_SOURCES)
tests_fuzz_fuzz_tokenizer_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(PCRE2_CFLAGS) $(UTF8PROC_CFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_tokenizer_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_tokenizer_LDADD = $(KT_DEPLIBS) -lm
endif
