/* cmds.h - the commands of kttune. Each takes its own argument vector (argv[0] is the command's
 * name) and returns an exit code: 0 done; 1 usage or I/O; 2 stages missing at the deadline; 3
 * refused by limits or permissions; 4 profile invalid, stale or of another host; 5 a check is not
 * met; 6 model file invalid.
 */
#ifndef KT_TUNER_CMDS_H
#define KT_TUNER_CMDS_H

#include "base/status.h"

enum {
    EXIT_OK = 0,
    EXIT_USAGE = 1,
    EXIT_DEADLINE = 2,
    EXIT_REFUSED = 3,
    EXIT_PROFILE = 4,
    EXIT_NOT_MET = 5,
    EXIT_MODEL = 6
};

/* Print "kttune NAME: message" on standard error and give the exit code of the status (model: the
 * failing file is a model). */
int cmd_fail(const char *name, const kt_err *err, int model);
/* Print "kttune NAME: what, argument" (argument: NULL or what it is about) and where the options
 * are told; gives EXIT_USAGE. */
int cmd_usage(const char *name, const char *what, const char *argument);
/* A whole decimal number in [min, max]; false for anything else. */
bool cmd_number(const char *text, uint32_t min, uint32_t max, uint32_t *out);

int cmd_probe(int argc, char **argv);
int cmd_show(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_diff(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_synth(int argc, char **argv);
int cmd_check_model(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_tune(int argc, char **argv);

#endif
