/* probe_isa.c - which kernel variants may be used here: a flag in CPUID is a promise, so every row
 * of the kernel table whose flags are there runs once against ref in a child of its own. A row that
 * gives other bits, or ends with a signal, takes its ISA bits out of what this host may use.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kern.h"
#include "probe.h"
#include "selftest.h"

_Static_assert((int)KERN_ISA_AVX2 == (int)HOST_ISA_AVX2 && (int)KERN_ISA_AMX == (int)HOST_ISA_AMX &&
                   (int)KERN_ISA_AVX512VNNI == (int)HOST_ISA_AVX512VNNI &&
                   (int)KERN_ISA_AVXVNNI == (int)HOST_ISA_AVXVNNI,
               "host.h and kern.h must number the ISA bits alike");

static int test_child(void *ctx, struct m_out *o)
{
    switch (selftest_run(ctx)) {
    case SELFTEST_OK:
        m_sample(o, 0, 1, M_CLEAN);
        return 0;
    case SELFTEST_WRONG:
        return m_fail(o, "bits differ from ref");
    case SELFTEST_NO_REF:
        return m_fail(o, "no ref variant to compare with");
    default:
        return m_fail(o, "out of memory");
    }
}

static const char *const flag_of_bit[] = {"avx2",       "avx512bw", "avx512vnni",
                                          "avx512bf16", "avxvnni",  "amxint8"};

/* A failed variant makes the flag that only it needs unusable; lower levels keep theirs. */
static void drop_isa(struct probe_run *r, uint32_t isa)
{
    json_t *usable = json_object_get(json_object_get(r->p->root, "isa"), "usable");
    int top = 31;
    if (isa == 0)
        return;
    while (!(isa >> top & 1))
        top--;
    r->isa &= ~(1u << top);
    if (top >= (int)(sizeof flag_of_bit / sizeof *flag_of_bit))
        return;
    for (size_t i = json_array_size(usable); i-- > 0;)
        if (strcmp(json_string_value(json_array_get(usable, i)), flag_of_bit[top]) == 0)
            json_array_remove(usable, i);
}

static kt_status test_row(struct probe_run *r, const struct kern *row, json_t *out, kt_err *err)
{
    json_t *v = json_object();
    const char *verdict = "skipped";
    char detail[160] = "";
    json_object_set_new(v, "name", json_string(row->name));
    if ((row->isa & ~r->h->isa.kern_isa) != 0) {
        snprintf(detail, sizeof detail, "CPUID, XCR0 or permission lacks it");
    } else {
        struct m_result res;
        struct kern copy = *row;
        double left = probe_time_left(r);
        kt_status st = m_run(test_child, &copy, left < 3 ? left : 3, &res, err);
        if (st != KT_OK) {
            json_decref(v);
            return st;
        }
        verdict = res.end == M_DONE          ? "ok"
                  : res.end == M_SIGNAL      ? "signal"
                  : res.end == M_NOT_STARTED ? "skipped"
                                             : "wrong";
        if (res.end != M_DONE)
            m_reason(&res, detail, sizeof detail);
        m_result_free(&res);
    }
    json_object_set_new(v, "selftest", json_string(verdict));
    if (detail[0] != '\0')
        json_object_set_new(v, "detail", json_string(detail));
    if (json_array_append_new(out, v) != 0)
        KT_FAIL(err, KT_E_NOMEM, "no memory for self-test results");
    if (strcmp(verdict, "ok") == 0 || strcmp(verdict, "skipped") == 0)
        return KT_OK;
    drop_isa(r, row->isa);
    char text[256];
    snprintf(text, sizeof text, "%s failed its self-test: %s", row->name, detail);
    return profile_warn(r->p, "KT022", "error", row->name,
                        "the next lower variant is used; report it with the CPU's name", text, err);
}

kt_status probe_isa(struct probe_run *r, kt_err *err)
{
    size_t n;
    const struct kern *const *table = kern_table(&n);
    json_t *variants = json_array();
    for (size_t i = 0; i < n; i++) {
        probe_progress(r, table[i]->name, (double)i / (double)n);
        kt_status st = test_row(r, table[i], variants, err);
        if (st != KT_OK) {
            json_decref(variants);
            return st;
        }
    }
    json_object_set_new(json_object_get(r->p->root, "isa"), "variants", variants);
    return KT_OK;
}
