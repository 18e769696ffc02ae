# src/plan
noinst_LTLIBRARIES += %D%/libplan.la
%C%_libplan_la_CFLAGS = $(ROOM_CFLAGS)
%C%_libplan_la_SOURCES =
src_plan_libplan_la_SOURCES += \
	%D%/plan.h %D%/plan_int.h \
	%D%/plan_explain.c %D%/plan_fit.c %D%/plan_html.c \
	%D%/plan_host.c %D%/plan_model.c %D%/plan_model.h %D%/plan_note.c %D%/plan_predict.c %D%/plan_remedy.c %D%/plan_remedy.h %D%/plan_remedy_text.c %D%/plan_text.c \
	%D%/plan_tiers.c
