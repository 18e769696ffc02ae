# container readers, traits, weight map
src_model_libmodel_la_SOURCES += \
	%D%/gguf.c %D%/gguf_priv.h %D%/gguf_shard.c %D%/gguf_write.c %D%/gguf_write.h \
	%D%/model.c %D%/model_priv.h %D%/rows.c %D%/scales.c \
	%D%/safetensors.c %D%/safetensors.h %D%/st_header.c %D%/st_priv.h \
	%D%/shape.c %D%/shape.h %D%/shape_config.c %D%/shape_files.c \
	%D%/traits.c %D%/traits_gguf.c %D%/traits_hf.c %D%/weights.c
