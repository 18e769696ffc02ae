# tune
kttune_SOURCES += \
	%D%/search.c %D%/search.h %D%/search_final.c %D%/search_int.h %D%/search_stats.c %D%/search_stats.h \
	%D%/timer.h %D%/timer_virtual.c %D%/timer_virtual.h
