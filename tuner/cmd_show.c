/* cmd_show.c - `kttune show F`: a profile for people. Does not compare with this machine. */
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
    const char *path = NULL;
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
        } else if (path == NULL) {
            path = argv[i];
        } else {
            return cmd_usage("show", "one file at a time; unexpected ", argv[i]);
        }
    }
    if (profile_read(path != NULL ? path : "host.json", &p, &err) != KT_OK)
        return cmd_fail("show", &err, 0);
    if (json)
        (void)profile_text(p, &b, NULL);
    else
        show_profile(p, NULL, isatty(STDOUT_FILENO) == 1, &b);
    profile_close(p);
    return put(&b);
}
