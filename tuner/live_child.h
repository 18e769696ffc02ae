/* live_child.h - messages between the tuner and its timing process, and that process itself. Both
 * are the same program, so messages are plain structs. */
#ifndef KT_TUNER_LIVE_CHILD_H
#define KT_TUNER_LIVE_CHILD_H

#include "timer_live.h"

#define LIVE_REPEATS_MOST 256

struct live_ready {
    kt_status status;
    int os_errno;
    char msg[480];
    struct live_config built_in;
    uint32_t n_pools;
    char expert_format[16], dense_format[16];
    double load_seconds;
    uint64_t bytes;
    uint32_t vocab;
};
struct live_ask {
    struct live_config config;
    uint32_t repeats;
};
struct live_answer {
    kt_status status;
    double seconds; /* of `repeats` steps; for both goals the geometric mean of the two */
};

/* Never returns: loads, says ready, answers until the socket closes. */
_Noreturn void live_child(const struct live_opts *o, int fd);

#endif
