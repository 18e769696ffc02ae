/* cmd_show.c - `kttune show F` and `kttune explain ID --profile F`: a profile for people. Neither
 * compares with this machine unless asked to. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmds.h"
#include "profile/profile.h"
#include "show.h"

static int put(struct strbuf *b)
{
    bool ok = sb_ok(b) && (b->len == 0 || fwrite(b->data, 1, b->len, stdout) == b->len) &&
              fflush(stdout) == 0;
    sb_free(b);
    return ok ? EXIT_OK : EXIT_USAGE;
}

int cmd_show(int argc, char **argv)
{
    static const char help[] = "usage: kttune show [--json] [FILE]\n\nPrint a host profile "
                               "(default host.json) as a table.\n";
    const char *path = "host.json";
    bool json = false;
    struct profile *p;
    struct strbuf b = {0};
    kt_err err;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (argv[i][0] == '-') {
            fprintf(stderr, "kttune show: no option '%s'\n%s", argv[i], help);
            return EXIT_USAGE;
        } else {
            path = argv[i];
        }
    }
    if (profile_read(path, &p, &err) != KT_OK)
        return cmd_fail("show", &err, 0);
    if (json)
        (void)profile_text(p, &b, NULL);
    else
        show_profile(p, NULL, isatty(STDOUT_FILENO) == 1, &b);
    profile_close(p);
    return put(&b);
}

/* ---- explain ---- */

static const json_t *find_decision(const json_t *array, const char *id)
{
    for (size_t i = 0; i < json_array_size(array); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(array, i), "id")), id) == 0)
            return json_array_get(array, i);
    return NULL;
}

static void explain(const struct profile *p, const json_t *d, bool color, struct strbuf *out)
{
    const json_t *because = json_object_get(d, "because");
    show_decision(d, color, out);
    for (size_t i = 0; i < json_array_size(because); i++) {
        const char *id = json_string_value(json_array_get(because, i));
        const json_t *m = find_decision(json_object_get(p->root, "measurements"), id);
        const char *unit = json_string_value(json_object_get(m, "unit"));
        char v[32];
        show_value(json_number_value(json_object_get(m, "median")), unit != NULL ? unit : "count",
                   v, sizeof v);
        sb_printf(out, "      because: %s = %s\n", id,
                  json_object_get(m, "median") != NULL ? v : "not measured");
    }
}

int cmd_explain(int argc, char **argv)
{
    static const char help[] = "usage: kttune explain ID [--profile FILE]\n\nTell one decision of "
                               "a profile (default host.json), its reason, runner-up and "
                               "measurements.\n";
    const char *path = "host.json", *id = NULL;
    struct profile *p;
    struct strbuf b = {0};
    kt_err err;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[i], "--profile") == 0 && i + 1 < argc)
            path = argv[++i];
        else if (argv[i][0] != '-' && id == NULL)
            id = argv[i];
        else {
            fprintf(stderr, "kttune explain: unexpected '%s'\n%s", argv[i], help);
            return EXIT_USAGE;
        }
    }
    if (id == NULL) {
        fputs(help, stderr);
        return EXIT_USAGE;
    }
    if (profile_read(path, &p, &err) != KT_OK)
        return cmd_fail("explain", &err, 0);
    const json_t *all = json_object_get(p->root, "decisions"), *d = find_decision(all, id);
    if (d != NULL) {
        explain(p, d, isatty(STDOUT_FILENO) == 1, &b);
    } else {
        fprintf(stderr, "kttune explain: %s has no decision '%s'; it has:\n", path, id);
        for (size_t i = 0; i < json_array_size(all); i++)
            fprintf(stderr, "  %s\n",
                    json_string_value(json_object_get(json_array_get(all, i), "id")));
    }
    profile_close(p);
    int code = put(&b);
    return d != NULL ? code : EXIT_USAGE;
}
