# plan, explain, diff
kttune_SOURCES += %D%/cmd_diff.c %D%/cmd_explain.c %D%/cmd_plan.c %D%/plan_args.c %D%/plan_args.h %D%/plan_tuned.c
