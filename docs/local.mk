# documents and man pages
EXTRA_DIST += %D%/ARCHITECTURE.md %D%/COST.md %D%/METRICS.md %D%/PREDICTIONS.md %D%/TESTING.md %D%/TOPOLOGIES.md %D%/TUNING.md %D%/figures.svg
dist_man_MANS += %D%/man/kttune.1 %D%/man/ktserve.8
