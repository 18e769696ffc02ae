"""peer_kt_kernel.py - kt-kernel (PyPI package of KTransformers) as a timed peer at the MoE operator; rounds started by lines on standard input.

usage: peer_kt_kernel.py METHOD THREADS TOKENS, METHOD one of INT8 INT4 RAWINT4 MXFP4 BF16 FP8; 128 experts, 8 per token, hidden 2048, inter 768. Speaks
as `kttune bench moe --paced` does: "ready", a line in, one JSON object out. The package's extension module is loaded by itself, with numpy arrays in the
place of torch tensors: its kernels and its thread pool are what is timed, and torch would be a download of gigabytes. The variant is the one that the
package picks for this CPU, except that the AMX build is left out where its tiles may not be used.
"""
import importlib.util
import json
import os
import sys
import time

import numpy as np

EXPERTS, TOP_K, HIDDEN, INTER = 128, 8, 2048, 768


def extension():
    folder = os.path.dirname(importlib.util.find_spec("kt_kernel").origin)
    with open("/proc/cpuinfo") as f:
        flags = next((set(line.split(":")[1].split()) for line in f if line.startswith("flags")), set())
    wants = (
        ("amx", {"amx_tile", "amx_int8", "amx_bf16"}),
        ("avx512_bf16", {"avx512_bf16", "avx512vbmi", "avx512_vnni"}),
        ("avx512_vbmi", {"avx512vbmi", "avx512_vnni"}),
        ("avx512_vnni", {"avx512_vnni", "avx512bw"}),
        ("avx512_base", {"avx512f", "avx512bw"}),
        ("avx2", {"avx2"}),
    )
    for variant, needs in wants:
        files = [f for f in os.listdir(folder) if f.startswith(f"_kt_kernel_ext_{variant}.")]
        if needs <= flags and files:
            spec = importlib.util.spec_from_file_location("kt_kernel_ext", os.path.join(folder, files[0]))
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module, variant
    sys.exit("kt-kernel has no build for this CPU")


def bf16(rng, shape, deviation):
    x = rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
    return (x.view(np.uint32) >> 16).astype(np.uint16)


class Operator:
    """One layer of experts with random weights of a method, ready to run."""

    def __init__(self, method, threads, tokens):
        self.m, self.variant = extension()
        self.rng = np.random.default_rng(1)
        self.keep = []  # arrays that the extension points into
        pool = self.m.WorkerPoolConfig()
        pool.subpool_count, pool.subpool_numa_map, pool.subpool_thread_count = 1, [0], [threads]
        self.cpu = self.m.CPUInfer(pool)
        mask = np.zeros(EXPERTS, np.uint8)
        self.keep.append(mask)
        c = self.m.moe.MOEConfig(EXPERTS, TOP_K, HIDDEN, INTER, mask.ctypes.data)
        c.layer_idx, c.pool, c.max_len = 0, self.cpu.backend_, max(tokens, 512)
        self.moe = self.fill(method, c)
        order = np.arange(EXPERTS, dtype=np.int64)
        self.run(self.moe.load_weights_task(order.ctypes.data))
        self.keep.append(order)
        self.tokens = tokens
        self.x = bf16(self.rng, (tokens, HIDDEN), 1)
        self.out = np.zeros((tokens, HIDDEN), np.uint16)
        self.weight = np.full((tokens, TOP_K), 1 / TOP_K, np.float32)
        self.count = np.array([tokens], np.int32)

    def run(self, task):
        self.cpu.submit(task)
        self.cpu.sync()

    def pointers(self, array):
        self.keep.append(array)
        return [[array[e].ctypes.data for e in range(EXPERTS)]]

    def fill(self, method, c):
        """Weights into the config; the operator of the method."""
        up, down = (EXPERTS, INTER, HIDDEN), (EXPERTS, HIDDEN, INTER)
        kinds = self.m.moe
        if method in ("INT8", "INT4"):
            weights = [bf16(self.rng, s, 0.02) for s in (up, up, down)]
            self.keep += weights
            c.gate_proj, c.up_proj, c.down_proj = (w.ctypes.data for w in weights)
            c.save = c.load = False
            return (kinds.AMXInt8_MOE if method == "INT8" else kinds.AMXInt4_MOE)(c)
        if method == "BF16":
            c.gate_projs, c.up_projs, c.down_projs = (self.pointers(bf16(self.rng, s, 0.02)) for s in (up, up, down))
            c.gate_scales = c.up_scales = c.down_scales = [[0] * EXPERTS]
            return kinds.AMXBF16_MOE(c)
        if method == "FP8":
            c.gate_projs, c.up_projs, c.down_projs = (self.pointers(self.rng.integers(0, 120, s, dtype=np.uint8)) for s in (up, up, down))
            scale = (self.pointers(np.full((s[0], s[1] // 128, s[2] // 128), 0.01, np.float32)) for s in (up, up, down))
            c.gate_scales, c.up_scales, c.down_scales = scale
            c.quant_config.bits, c.quant_config.group_size, c.quant_config.zero_point = 8, 128, False
            return kinds.AMXFP8_MOE(c)
        if method not in ("MXFP4", "RAWINT4"):
            sys.exit(f"no method {method}")
        codes = (self.pointers(self.rng.integers(0, 256, (s[0], s[1], s[2] // 2), dtype=np.uint8)) for s in (up, up, down))
        c.gate_projs, c.up_projs, c.down_projs = codes
        scale = (self.pointers(np.full((s[0], s[1], s[2] // 32), 0x3C00, np.uint16)) for s in (up, up, down))
        c.gate_scales, c.up_scales, c.down_scales = scale
        c.quant_config.bits, c.quant_config.group_size, c.quant_config.zero_point = 4, 32, False
        return (kinds.AMXFP4_KGroup_MOE if method == "MXFP4" else kinds.AMXInt4_KGroup_MOE)(c)

    def forward(self):
        """Seconds of one pass over fresh balanced-random experts."""
        ids = np.argsort(self.rng.random((self.tokens, EXPERTS)), axis=1)[:, :TOP_K].astype(np.int64)
        t = time.perf_counter()
        self.run(self.moe.forward_task(self.count.ctypes.data, TOP_K, ids.ctypes.data, self.weight.ctypes.data, self.x.ctypes.data, self.out.ctypes.data, False))
        return time.perf_counter() - t


def main():
    method, threads, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    protocol = os.fdopen(os.dup(1), "w")  # the extension prints lines of its own on standard output
    os.dup2(2, 1)
    op = Operator(method, threads, tokens)
    passes = 40 if tokens < 8 else 3
    for _ in range(2):
        op.forward()
    while True:
        print("ready", file=protocol, flush=True)
        if not sys.stdin.readline():
            os._exit(0)  # the pool's destructor waits for threads that a stop may have caught
        times = sorted(op.forward() for _ in range(passes))
        print(json.dumps({"seconds": times[passes // 2], "variant": op.variant}), file=protocol, flush=True)


if __name__ == "__main__":
    main()
