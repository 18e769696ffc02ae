# report
kttune_SOURCES += %D%/cmd_report.c %D%/report.c %D%/report.h
