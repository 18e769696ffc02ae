#!/usr/bin/env python3
"""Write vec_golden.h: what the numpy reading of canonical arithmetic gives on small inputs.

usage: vec_golden.py CANONICAL.PY > vec_golden.h
CANONICAL.PY is shared/fixtures/golden/canonical.py; its functions are used as they are (its main() is cut off). Needs numpy and safetensors.
Inputs come from a generator that test_vec.c repeats, so only results are stored, as the bits of fp32 words. Run again only when the definition changes.
"""
import sys

import numpy as np

scope = {}
exec(open(sys.argv[1]).read().rsplit("main()", 1)[0], scope)
exp, rmsnorm, swiglu, rotate, attention, bf16, fma, Groups = (scope[n] for n in "exp rmsnorm swiglu rotate attention bf16 fma Groups".split())
F, D, I = np.float32, np.float64, np.int64


def draw(seed, n, unit):
    """n numbers in [-32768, 32768) * unit from a linear congruential generator."""
    out = np.empty(n, F)
    for i in range(n):
        seed = (seed * 1664525 + 1013904223) & 0xffffffff
        out[i] = F((seed >> 16) - 32768.0) * F(unit)
    return out


def table(name, values):
    words = np.ascontiguousarray(values, F).reshape(-1).view(np.uint32)
    print(f"static const uint32_t {name}[{len(words)}] = {{")
    for i in range(0, len(words), 12):
        print("    " + ", ".join(f"0x{w:08x}" for w in words[i:i + 12]) + ",")
    print("};")


def quant(x):
    """q * scale of each element, and the code sum * scale of each group, through the class that multiplies by them."""
    one = Groups(np.eye(len(x), dtype=I), np.ones((len(x), len(x) // 32)))
    codes = one(x[None])[0]
    g = len(x) // 32
    pick = np.zeros((g, g))
    pick[np.arange(g), np.arange(g)] = 1
    sums = Groups(np.zeros((g, len(x)), I), pick, pick)(x[None])[0]
    return codes, sums


def main():
    print("/* vec_golden.h - results of canonical arithmetic on the inputs of test_vec.c, written by vec_golden.py from an independent numpy reading.\n"
          " * fp32 words by their bits. Not edited by hand.\n */\n#ifndef KT_VEC_GOLDEN_H\n#define KT_VEC_GOLDEN_H\n\n#include <stdint.h>\n")
    with np.errstate(all="ignore"):
        table("golden_exp", np.concatenate((exp(draw(1, 96, 1 / 256)), exp(draw(2, 48, 1 / 8192)),
                                            exp(np.array([-87, -87.00001, -86.99999, -88, -np.inf, 88, 88.1, 1e30, np.inf, 0, -0.0, 2 ** -130, -2 ** -149, 87.9], F)))))
        table("golden_swiglu", swiglu(draw(3, 60, 1 / 1024), draw(4, 60, 1 / 4096)))
    for n in (1, 15, 37, 128):
        table(f"golden_rmsnorm_{n}", rmsnorm(draw(5, n, 1 / 4096), draw(6, n, 1 / 8192), 1e-6))
    half = 11
    x, cos, sin = draw(7, 2 * half, 1 / 4096), draw(8, half, 2.0 ** -15), draw(9, half, 2.0 ** -15)
    table("golden_rope_halves", rotate(x[None, None], cos[None], sin[None]))
    pairs = rotate(x.reshape(half, 2).T.reshape(1, 1, -1), cos[None], sin[None])
    table("golden_rope_pairs", pairs.reshape(2, half).T)
    codes, sums = quant(draw(10, 320, 1 / 512))
    table("golden_quant", codes)
    table("golden_quant_sums", sums)
    for dim, heads, keys in ((16, 2, 300), (6, 3, 70)):
        q, k, v = (draw(s, keys * h * dim, 2.0 ** -13).reshape(keys, h, dim) for s, h in ((11, heads), (12, 1), (13, 1)))
        rows = [n - 1 for n in (1, 2, 63, 64, 65, 256, 257, 300) if n <= keys]
        table(f"golden_attn_f32_{dim}", attention(q, k, v, dim)[rows])
        table(f"golden_attn_bf16_{dim}", attention(q, bf16(k), bf16(v), dim)[rows])
    acc, weights = np.zeros(24, I), draw(14, 5, 2.0 ** -16)
    for e in range(5):
        y = draw(20 + e, 24, 2.0 ** -11)
        acc += np.rint((weights[e] * y).astype(D) * 2.0 ** 32).astype(I)
    table("golden_moe", draw(15, 24, 2.0 ** -12) + acc.astype(F) * F(2.0 ** -32))
    print("\n#endif")


main()
