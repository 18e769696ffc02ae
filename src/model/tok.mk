# tokenizer and chat
src_model_libmodel_la_SOURCES += \
	%D%/chat.c %D%/chat.h \
	%D%/norm.c %D%/norm.h \
	%D%/pretok.c %D%/pretok.h \
	%D%/pretok_pattern.c \
	%D%/pretok_table.c \
	%D%/tok.c \
	%D%/tok_added.c %D%/tok_added.h \
	%D%/tok_api.c \
	%D%/tok_bpe.c %D%/tok_bpe.h \
	%D%/tok_config.c \
	%D%/tok_gguf.c \
	%D%/tok_json.c %D%/tok_json.h \
	%D%/tok_json_parts.c \
	%D%/tok_priv.h \
	%D%/uni.h
