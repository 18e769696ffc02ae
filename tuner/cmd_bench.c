/* cmd_bench.c - kttune bench WHAT: dispatch to the benchmarks. */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "cmds.h"

int cmd_bench(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "model") == 0)
        return bench_model(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "kernels") == 0)
        return bench_kernels(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "load") == 0)
        return bench_load(argc - 1, argv + 1);
    if (argc >= 2 && strcmp(argv[1], "moe") == 0)
        return bench_moe(argc - 1, argv + 1);
    FILE *to = argc >= 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr;
    fprintf(to,
            "usage: kttune bench model -m MODEL [options]   decode and prefill speed against "
            "this machine's ceilings\n"
            "       kttune bench moe [options]              the mixture-of-experts operator, the "
            "same\n"
            "       kttune bench kernels [options]          matrix kernels on cold weights, the "
            "same\n"
            "       kttune bench load -m MODEL [options]    loading, cold and warm, against "
            "reading and copying the files\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}
