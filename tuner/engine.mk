# check-model, bench
kttune_SOURCES += \
	%D%/cmd_bench.c \
	%D%/bench_model.c %D%/bench.h \
	%D%/bench_kernels.c %D%/bench_kernels.h %D%/bench_kernels_out.c \
	%D%/bench_load.c \
	%D%/load_show.c %D%/load_show.h \
	%D%/bench_moe.c %D%/bench_moe_ids.c %D%/bench_moe_ids.h \
	%D%/bench_host.c %D%/bench_host.h \
	%D%/bench_args.c %D%/bench_args.h %D%/bench_rounds.c %D%/bench_rounds.h \
	%D%/kern_set.c %D%/kern_set.h \
	%D%/paced.c %D%/paced.h \
	%D%/ceiling.c %D%/ceiling.h \
	%D%/cmd_check_model.c \
	%D%/golden.c %D%/golden.h
