# check-model, bench
