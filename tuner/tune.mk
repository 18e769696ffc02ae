# tune
kttune_SOURCES += \
	%D%/search.c %D%/search.h %D%/search_final.c %D%/search_int.h %D%/search_stats.c %D%/search_stats.h \
	%D%/cmd_tune.c %D%/live_child.c %D%/live_child.h %D%/regret.c %D%/regret.h %D%/verify_regret.c %D%/verify_regret.h %D%/replay_run.c %D%/space.c %D%/space.h \
	%D%/timer_live.c %D%/timer_live.h %D%/timer_replay.c %D%/timer_replay.h \
	%D%/tune.h %D%/tune_json.c %D%/fleet.c %D%/fleet.h %D%/outer.c %D%/outer.h %D%/tune_layout.c %D%/tune_prune.c %D%/tune_prune.h \
	%D%/tune_live.c %D%/tune_live.h %D%/tune_print.c %D%/tune_record.c %D%/tune_replay.c %D%/tune_replay.h %D%/tune_space.c \
	%D%/timer.h %D%/timer_journal.c %D%/timer_journal.h %D%/tune_state.c %D%/tune_state.h %D%/timer_virtual.c %D%/timer_virtual.h
