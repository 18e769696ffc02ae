# inspect, convert, synth
kttune_SOURCES += %D%/cmd_convert.c %D%/cmd_inspect.c %D%/cmd_synth.c %D%/convert_tok.c %D%/convert_tok.h %D%/gguf_model.c %D%/gguf_model.h \
	%D%/inspect.h %D%/inspect_json.c
