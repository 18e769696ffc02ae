# inspect, convert, synth
kttune_SOURCES += %D%/cmd_synth.c %D%/gguf_model.c %D%/gguf_model.h
