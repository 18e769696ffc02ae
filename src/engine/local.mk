# src/engine
noinst_LTLIBRARIES += %D%/libengine.la
src_engine_libengine_la_CFLAGS = $(ROOM_CFLAGS)
src_engine_libengine_la_SOURCES = \
	%D%/attn_plan.c \
	%D%/engine.c %D%/engine.h \
	%D%/jobs.c \
	%D%/layer_attn.c \
	%D%/layer_ffn.c \
	%D%/load.c \
	%D%/memory.c \
	%D%/moe.c %D%/moe.h \
	%D%/moe_op.c \
	%D%/pack_cache.c %D%/pack_cache.h \
	%D%/pack_key.c %D%/pack_key.h \
	%D%/packing.c \
	%D%/numa.c \
	%D%/predict.c \
	%D%/retune.c \
	%D%/sample.c %D%/sample.h \
	%D%/source.c %D%/source.h \
	%D%/spot.c \
	%D%/seq_fill.c \
	%D%/tuned.c %D%/tuned.h \
	%D%/step.c
