/* tune_print.c - the verdict of a search for people, on standard output. */
#include <math.h>
#include <stdio.h>

#include "tune.h"

const char *tune_rule_name(enum tune_rule r)
{
    static const char *const name[] = {"load", "selftest", "knee", "blocking", "roofline"};
    return name[r];
}

static void print_pruned(const struct tune_job *j)
{
    bool any = false;
    for (int i = 0; i < TUNE_RULES; i++) {
        if (j->pruned.n[i] > 0)
            printf("%s%-9s %6u   %s\n", any ? "         " : "left out ", tune_rule_name(i),
                   j->pruned.n[i], j->pruned.why[i]);
        any = any || j->pruned.n[i] > 0;
    }
}

static void print_tries(const struct tune_job *j)
{
    for (uint32_t i = 0; i < j->n_tries; i++)
        printf("%s %-5s %-8s %-11s %s\n", i == 0 ? "at load " : "        ", j->tries[i].axis,
               j->tries[i].value, outer_fate_name(j->tries[i].fate), j->tries[i].reason);
}

void tune_print(const struct tune_job *j, const struct search_out *r)
{
    struct strbuf t = {0};
    space_text(j->space, 0, true, &t);
    sb_puts(&t, "\nchosen   ");
    space_text(j->space, r->chosen, false, &t);
    printf("default  %s\n", t.data != NULL ? t.data : "");
    if (r->proved)
        printf("         %+.1f %% (95 %%: %+.1f to %+.1f) over the default in %u fresh paired "
               "rounds\n",
               100 * r->gain.median, 100 * r->gain.lo, 100 * r->gain.hi, r->gain.n);
    else
        printf("         the default stays: %s\n",
               r->stop == SEARCH_EQUIVALENT  ? "the best of the others is within 1 %"
               : r->stop == SEARCH_TOO_NOISY ? "too noisy to rank what is less than 5 % apart"
               : r->stop == SEARCH_BUDGET    ? "time was up before anything was proved"
                                             : "nothing was proved faster");
    for (uint32_t i = 0; i < r->n_finalists; i++) {
        const struct search_finalist *f = &r->finalist[i];
        if (f->config == r->chosen || f->behind.n == 0)
            continue;
        sb_clear(&t);
        space_text(j->space, f->config, false, &t);
        printf("rival    %s: time %+.1f %% (95 %%: %+.1f to %+.1f)\n", t.data != NULL ? t.data : "",
               100 * (exp(f->behind.median) - 1), 100 * (exp(f->behind.lo) - 1),
               100 * (exp(f->behind.hi) - 1));
    }
    if (r->regret.n > 0)
        printf("regret   %.1f %%, at most %.1f %% (95 %%) against %u rivals\n",
               100 * r->regret.median, 100 * r->regret.hi, r->regret.n);
    printf("noise    CV %.1f %%; %u of %u configurations timed, %u left out, %u failed; %u samples "
           "in %.0f s\n",
           100 * r->noise_cv, r->timed, j->space->n, j->space->total - j->space->n,
           r->failed + r->hung, r->samples, r->elapsed_seconds);
    print_pruned(j);
    print_tries(j);
    if (r->missing[0] != '\0')
        printf("missing  %s\n", r->missing);
    sb_free(&t);
}
