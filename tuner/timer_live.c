/* timer_live.c - see timer_live.h. This file is the parent's side: starting the child, asking with
 * a deadline, killing. The child's side is live_child.c.
 */
#define _GNU_SOURCE
#include "timer_live.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "live_child.h"

#define STARTS_MOST 8 /* children of one search: each loads the model again */
#define CALIBRATE_SECONDS 60.0

static void stop_child(struct live *l)
{
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    if (l->pid > 0) {
        kill(l->pid, SIGKILL);
        while (waitpid(l->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    l->pid = 0;
}

void live_close(struct live *l)
{
    if (l->pid > 0)
        stop_child(l);
}

/* One whole message before the deadline; 0 yes, 1 time is up, 2 the child is gone. */
static int receive(struct live *l, void *msg, size_t n, double seconds)
{
    double deadline = clock_seconds() + seconds;
    for (;;) {
        double left = deadline - clock_seconds();
        struct pollfd p = {.fd = l->fd, .events = POLLIN};
        int r = poll(&p, 1, left <= 0 ? 0 : left > 1e6 ? 1000000000 : (int)(left * 1e3) + 1);
        if (r < 0 && errno == EINTR)
            continue;
        if (r == 0 && clock_seconds() >= deadline)
            return 1;
        if (r > 0)
            return recv(l->fd, msg, n, MSG_WAITALL) == (ssize_t)n ? 0 : 2;
        if (r < 0)
            return 2;
    }
}

static kt_status start_child(struct live *l, kt_err *err)
{
    int fd[2];
    struct live_ready ready;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0)
        KT_FAIL_OS(err, KT_E_IO, "cannot make a socket pair: %s", strerror(errno));
    fflush(NULL);
    l->starts++;
    l->pid = fork();
    if (l->pid < 0) {
        close(fd[0]);
        close(fd[1]);
        l->pid = 0;
        KT_FAIL_OS(err, KT_E_LIMIT, "cannot start the timing process: %s", strerror(errno));
    }
    if (l->pid == 0) {
        close(fd[0]);
        live_child(&l->o, fd[1]);
    }
    close(fd[1]);
    l->fd = fd[0];
    int r = receive(l, &ready, sizeof ready, 1e9);
    if (r != 0 || ready.status != KT_OK) {
        stop_child(l);
        if (r != 0)
            KT_FAIL(err, KT_E_DEVICE, "the timing process died while it loaded %s",
                    l->o.engine.model_path);
        ready.msg[sizeof ready.msg - 1] = '\0';
        return err_set(err, ready.status, ready.os_errno, __func__, "%s", ready.msg);
    }
    l->built_in = ready.built_in;
    l->n_pools = ready.n_pools;
    memcpy(l->expert_format, ready.expert_format, sizeof l->expert_format);
    memcpy(l->dense_format, ready.dense_format, sizeof l->dense_format);
    l->load_seconds = ready.load_seconds;
    l->bytes = ready.bytes;
    l->vocab = ready.vocab;
    return KT_OK;
}

static enum timer_result ask(struct live *l, const struct live_config *c, double limit,
                             double *seconds)
{
    struct live_ask q = {.config = *c, .repeats = l->repeats};
    struct live_answer a;
    kt_err err;
    if (l->fd < 0 && (l->starts >= STARTS_MOST || start_child(l, &err) != KT_OK))
        return TIMER_FAILED;
    int r = 2;
    if (send(l->fd, &q, sizeof q, MSG_NOSIGNAL) == (ssize_t)sizeof q)
        r = receive(l, &a, sizeof a, limit);
    if (r != 0) {
        stop_child(l);
        return r == 1 ? TIMER_HUNG : TIMER_FAILED;
    }
    *seconds = a.seconds;
    return a.status == KT_OK && a.seconds > 0 ? TIMER_OK : TIMER_FAILED;
}

static enum timer_result time_config(void *ctx, uint32_t config, uint32_t rep, double *seconds)
{
    struct live *l = ctx;
    (void)rep;
    /* a sample also switches the config and warms it up: room for that beside the sample itself */
    return ask(l, &l->config[config], 2 * l->limit + 1, seconds);
}

static double now(void *ctx)
{
    (void)ctx;
    return clock_seconds();
}

/* How many steps make a sample of the wanted length? */
static kt_status calibrate(struct live *l, kt_err *err)
{
    double seconds = 0;
    struct live_config as_opened = {0};
    for (l->repeats = 1;; l->repeats *= 2) {
        for (int i = 0; i < 2; i++)
            if (ask(l, &as_opened, CALIBRATE_SECONDS, &seconds) != TIMER_OK)
                KT_FAIL(err, KT_E_DEVICE, "%s: a step of the default configuration fails",
                        l->o.engine.model_path);
        if (seconds >= l->o.sample_seconds)
            break;
        if (l->repeats >= LIVE_REPEATS_MOST)
            break;
    }
    return KT_OK;
}

kt_status live_open(struct live *l, const struct live_opts *o, kt_err *err)
{
    memset(l, 0, sizeof *l);
    l->fd = -1;
    l->o = *o;
    l->timer = (struct kt_timer){l, time_config, now, &l->limit};
    l->repeats = o->repeats;
    kt_status s = start_child(l, err);
    if (s == KT_OK && o->repeats == 0)
        s = calibrate(l, err);
    if (s != KT_OK)
        live_close(l);
    return s;
}
