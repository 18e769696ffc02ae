# plan
kttune_SOURCES += %D%/cmd_plan.c %D%/plan_args.c %D%/plan_args.h
