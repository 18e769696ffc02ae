/* fake_kt.h - knobs of the fake engine (fake_kt.c). Set them before the engine is opened, or from
 * the test while it runs: they are atomic.
 */
#ifndef KT_TEST_FAKE_KT_H
#define KT_TEST_FAKE_KT_H

#include <stdatomic.h>

extern atomic_int fake_step_us;    /* each step sleeps this long */
extern atomic_bool fake_hold;      /* steps wait while it is set, ten seconds at most */
extern atomic_int fake_kv_pages;   /* pages of 16 tokens; read at open */
extern atomic_int fake_seqs_open;  /* sequences open now */
extern atomic_int fake_steps;      /* steps so far */
extern atomic_int fake_most_items; /* largest batch so far */

enum { FAKE_BYTES = 256, FAKE_START = 257, FAKE_END = 258, FAKE_PAD = 259, FAKE_VOCAB = 260 };

#endif
