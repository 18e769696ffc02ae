"""Make mm_golden.h: what the numpy reading of the canonical arithmetic gives for one matrix of each format.

usage: mm_golden.py CANONICAL.py > mm_golden.h      CANONICAL.py: canonical.py of the golden fixtures. Needs PyPI numpy, gguf, safetensors.
Inputs are a linear congruential sequence that test_mm_golden.c repeats; the header holds the first four results' bits and an FNV-1a of all.
"""
import sys
import types

import numpy as np
from gguf import GGMLQuantizationType as T

F = np.float32
ROWS, N = 19, 3
ROW_FORMATS = ("int4", "fp8", "int8")            # of checkpoints: no GGUF type, so read here
HALVES = dict(q8_0=[0], q4_0=[0], q4_1=[0, 2], q5_0=[0], q5_1=[0, 2], iq4_nl=[0], mxfp4=[], q4_k=[0, 2], q6_k=[208], q5_k=[0, 2], iq4_xs=[0], q3_k=[108], q2_k=[80, 82])
SIZE = dict(q8_0=34, q4_0=18, q4_1=20, q5_0=22, q5_1=24, iq4_nl=18, mxfp4=17, q4_k=144, q6_k=210, q5_k=176, iq4_xs=136, q3_k=110, q2_k=84)


class Source:
    def __init__(self, seed):
        self.s = seed

    def word(self):
        self.s = (self.s * 1664525 + 1013904223) & 0xffffffff
        return self.s >> 8

    def bytes(self, n):
        return np.array([self.word() >> 16 for _ in range(n)], np.uint8)

    def floats(self, n):                      # 24 random bits in [-0.5, 0.5), exact in fp32
        return np.array([self.word() / 2.0 ** 24 - 0.5 for _ in range(n)], F)


def e4m3(code):
    """Sign, four exponent bits of bias 7, three of the mantissa; exponent 0 is subnormal. Exact in fp32."""
    e, m = (code >> 3) & 15, (code & 7).astype(np.float64)
    v = np.where(e == 0, m * 2.0 ** -9, (8 + m) * 2.0 ** (e.astype(np.float64) - 10))
    return np.where(code & 128, -v, v).astype(F)


def int8_rows(code, scale):
    """One activation scale per token, one integer dot per row: y = fl32((float)dot * fl32(scale * a_scale))."""
    def product(x):
        a_scale = np.abs(x).max(1) / F(127)
        q = np.clip(np.rint(x * (F(1) / a_scale)[:, None]), -127, 127).astype(np.int64)
        return (q @ code.T).astype(F) * (scale[None] * a_scale[:, None])
    return product


def row_format(name, src, k, canon):
    """Bytes in the order of a row: scales, then codes (INT4: a BF16 scale before each 32 nibbles, the low ones columns 0..15)."""
    if name == "int4":
        raw = src.bytes(ROWS * k // 32 * 18).reshape(-1, 18)
        for b in raw:
            b[0], b[1] = src.bytes(1)[0], 0x3c + (src.word() >> 23)
        code = np.concatenate((raw[:, 2:] & 15, raw[:, 2:] >> 4), 1).astype(np.int64) - 8
        scale = (raw[:, :2].copy().view(np.uint16).astype(np.uint32) << 16).view(F)
        return canon.Groups(code.reshape(ROWS, k), scale.reshape(ROWS, -1))
    codes, scales = [], []
    for _ in range(ROWS):
        scales.append(src.floats(-(-k // 128) if name == "fp8" else 1) + F(1))
        codes.append(src.bytes(k))
    code, scale = np.array(codes), np.array(scales, F)
    if name == "int8":
        return int8_rows(code.view(np.int8).astype(np.int64), scale[:, 0])
    code[(code & 127) == 127] ^= 1               # no NaN
    return canon.Plain(e4m3(code) * np.repeat(scale, 128, 1)[:, :k])


def main():
    canon = types.ModuleType("canon")
    text = open(sys.argv[1]).read()
    exec(compile(text[:text.rindex("\nmain()")], "canonical", "exec"), canon.__dict__)
    print("/* mm_golden.h - bits of one product per format, computed by mm_golden.py with numpy, not by these kernels: 19 rows, 3 tokens. Data only. */")
    print("#ifndef KT_MM_GOLDEN_H\n#define KT_MM_GOLDEN_H\n")
    print("/* X(type, columns, first four results, FNV-1a of the bytes of all [3][19] results) */\n#define MM_GOLDEN(X) \\")
    lines = []
    for name in [*HALVES, *ROW_FORMATS, "bf16", "f16", "f32"]:
        src, k = Source(7), 1536 if SIZE.get(name, 0) > 34 else 1184 if name in (*HALVES, "int4", "int8") else 1100
        if name in ROW_FORMATS:
            product = row_format(name, src, k, canon)
        elif name in HALVES:
            blocks = ROWS * k // (256 if SIZE[name] > 34 else 32)
            raw = src.bytes(blocks * SIZE[name]).reshape(blocks, -1)
            for b in raw:
                for at in HALVES[name]:
                    b[at], b[at + 1] = src.bytes(1)[0], 0x2c + (src.word() >> 23)
            if name == "mxfp4":
                raw[:, 0] = 96 + raw[:, 0] % 32
            t = types.SimpleNamespace(tensor_type=T[name.upper()], data=raw.reshape(ROWS, -1), shape=[k, ROWS])
            product = canon.gguf_matrix(t, False)
        else:
            w = src.floats(ROWS * k)
            if name == "bf16":
                w = (w.view(np.uint32) & 0xffff0000).view(F)
            if name == "f16":
                w = (np.floor(w * 1024) / 1024).astype(F)
            product = canon.Plain(w.reshape(ROWS, k))
        y = np.ascontiguousarray(product(src.floats(N * k).reshape(N, k)).astype(F)).view(np.uint32).reshape(-1)
        h = 0xcbf29ce484222325
        for v in y.view(np.uint8):
            h = ((h ^ int(v)) * 0x100000001b3) & 0xffffffffffffffff
        first = ", ".join(f"0x{v:08x}u" for v in y[:4])
        lines.append(f"    X({name.upper()}, {k}, {first}, 0x{h:016x}u)")
    print(" \\\n".join(lines))
    print("\n#endif")


main()
