"""peer_llama.py - llama.cpp (PyPI package llama-cpp-python) as a timed peer: one GGUF, rounds started by lines on standard input.

usage: peer_llama.py FILE.gguf THREADS PROMPT GEN. Speaks as `kttune bench model --paced` does: "ready", a line in, one JSON object out. The low-level
API is used, so that no Python sampling or logit copying is timed; token ids are random and never fed back, as in kttune.
"""
import ctypes
import json
import random
import sys
import time

import llama_cpp as L


class Model:
    def __init__(self, path, threads, prompt):
        self.quiet = L.llama_log_callback(lambda *a: None)  # kept: the library calls it later
        L.llama_log_set(self.quiet, ctypes.c_void_p(0))
        L.llama_backend_init()
        params = L.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = L.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            sys.exit(f"{path}: llama.cpp does not load this file")
        c = L.llama_context_default_params()
        c.n_ctx, c.n_batch, c.n_ubatch, c.n_threads, c.n_threads_batch = prompt + 512, prompt, prompt, threads, threads
        self.context = L.llama_init_from_model(self.model, c)
        if not self.context:
            sys.exit(f"{path}: llama.cpp makes no context of {prompt + 512} tokens")
        self.vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(self.model))

    def forget(self):
        L.llama_memory_clear(L.llama_get_memory(self.context), True)

    def step(self, ids):
        """Seconds of one llama_decode; the last token's logits are computed."""
        a = (L.llama_token * len(ids))(*ids)
        t = time.perf_counter()
        if L.llama_decode(self.context, L.llama_batch_get_one(a, len(ids))) != 0:
            sys.exit("llama_decode failed")
        L.llama_synchronize(self.context)
        return time.perf_counter() - t


def main():
    path, (threads, prompt, gen) = sys.argv[1], map(int, sys.argv[2:5])
    m, rng = Model(path, threads, prompt), random.Random(1)
    first = True
    while True:
        if not first:
            print("ready", flush=True)
            if not sys.stdin.readline():
                return
        m.forget()
        prefill = m.step([rng.randrange(m.vocab) for _ in range(prompt)])
        decode = sum(m.step([rng.randrange(m.vocab)]) for _ in range(gen))
        if not first:
            print(json.dumps({"prefill_tok_s": prompt / prefill, "decode_tok_s": gen / decode}), flush=True)
        first = False  # the first round warms up


if __name__ == "__main__":
    main()
