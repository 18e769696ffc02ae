/* header_c.c - kt.h compiles alone as C, and the example of its documentation is this program: it
 * links against libkt as a user's would. */
#include <kt.h>

#include <stdio.h>

int main(void)
{
    kt_engine_opts o;
    kt_engine *e;
    kt_err err;
    kt_engine_opts_init(&o);
    o.model_path = "/nonexistent/model.gguf";
    kt_status s = kt_engine_open(&o, &e, &err);
    printf("libkt %s: %s (%s)\n", kt_version(), kt_status_name(s), err.msg);
    return s != KT_OK && e == NULL ? 0 : 1;
}
