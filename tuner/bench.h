/* bench.h - the benchmarks of kttune. Each parses its own options and returns an exit code of
 * cmds.h. */
#ifndef KT_TUNER_BENCH_H
#define KT_TUNER_BENCH_H

int bench_model(int argc, char **argv);
int bench_kernels(int argc, char **argv);
int bench_load(int argc, char **argv);
int bench_moe(int argc, char **argv);

#endif
