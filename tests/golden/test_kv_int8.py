"""INT8 keys and values against a reading in numpy, bit for bit.

The logits wanted are those of the golden fixtures' canonical.py, whose attention is replaced by this file's: keys, values and rotated queries as int8 with one scale
per row (amax / 127, codes to nearest even by the reciprocal), scores and values by integer sums, weights as multiples of a 32767th of the largest in their block of 256
positions. Then check-model --exact on every ISA level of this CPU, alone and in ragged batches, and with chunks that divide a block. Needs numpy; 77 without it (1 with
CI=true) or without the fixtures.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import types

try:
    import numpy as np
except ImportError:
    print("no numpy in", sys.executable)
    sys.exit(1 if os.environ.get("CI") == "true" else 77)

FIXTURES = os.path.join(os.environ.get("KT_FIXTURES", "../shared/fixtures"), "golden")
KTTUNE = os.environ.get("KTTUNE", os.path.join(os.environ.get("KT_BUILDDIR", "."), "kttune"))
F = np.float32


def canonical():
    """The module, without its command line and without the packages that only the command line needs."""
    text = open(os.path.join(FIXTURES, "canonical.py")).read()
    stub = types.ModuleType("safetensors")
    stub.safe_open, stub.numpy = None, types.ModuleType("safetensors.numpy")
    stub.numpy.save_file = None
    sys.modules.setdefault("safetensors", stub)
    sys.modules.setdefault("safetensors.numpy", stub.numpy)
    module = types.ModuleType("canonical")
    exec(compile(text[:text.rindex("\nmain()")], "canonical.py", "exec"), module.__dict__)
    return module


def codes(x, scales):
    """x as integers (held as float64, in which every sum below is exact) and their scales; x [.., n], one scale a row."""
    amax = np.abs(x).max(-1, keepdims=True)
    live = amax >= F(2.0 ** -100)
    scale, inv = scales(np.where(live, amax, F(1)))
    return np.where(live, np.rint(x * inv), 0).astype(float), np.where(live, scale, F(0)).astype(F)[..., 0]


def attention(canon):
    """canonical.py's attention over INT8 keys and values: q [T, H, d], k, v [T, KV, d] to [T, H * d], causal."""
    def act(amax):
        scale = amax / F(127)
        return scale, F(1) / scale

    def share(amax):
        return amax / F(32767), F(32767) / amax

    def run(q, k, v, dim):
        n, heads, group = q.shape[0], q.shape[1], q.shape[1] // k.shape[1]
        (q, qs), (k, ks), (v, vs) = (codes(x, act) for x in (q, k, v))
        k, ks, v, vs = (np.repeat(x, group, 1) for x in (k, ks, v, vs))
        f = qs * F(1 / np.sqrt(float(dim)))
        s = np.einsum("thd,jhd->thj", q, k).astype(F) * (f[:, :, None] * ks.T[None])
        parts, t = [], np.arange(n)
        for b in range(0, n, 256):
            keys = np.arange(b, min(b + 256, n))
            ok = keys[None, None] <= t[:, None, None]
            x = np.where(ok, s[:, :, keys], F(-np.inf))
            m = x.max(-1)
            p = np.where(ok, canon.exp(np.where(ok, x - np.where(np.isfinite(m), m, F(0))[..., None], F(0))), F(0)).astype(F)
            lane = np.zeros((n, heads, 16), F)
            for j in range(len(keys)):
                lane[:, :, j % 16] = lane[:, :, j % 16] + p[:, :, j]
            for half in (8, 4, 2, 1):
                lane = lane[..., :half] + lane[..., half:]
            u, unit = codes(p * vs[keys].T[None], share)
            parts.append((m, lane[..., 0], np.einsum("thj,jhd->thd", u, v[keys]).astype(F) * unit[..., None]))
        big = np.max([m for m, _, _ in parts], 0)
        low, o = np.zeros((n, heads), F), np.zeros((n, heads, dim), F)
        for m, l, y in parts:
            live = np.isfinite(m)
            e = np.where(live, canon.exp(np.where(live, m - big, F(0))), F(0)).astype(F)
            low = np.where(live, canon.fma(l, e, low), low)
            o = np.where(live[..., None], canon.fma(y, e[..., None], o), o)
        return (o / low[..., None]).reshape(n, -1)
    return run


def write(path, tensors):
    head, at = {}, 0
    for name, a in tensors.items():
        head[name] = dict(dtype={"int32": "I32", "float32": "F32"}[a.dtype.name], shape=list(a.shape), data_offsets=[at, at + a.nbytes])
        at += a.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for a in tensors.values():
            f.write(np.ascontiguousarray(a).tobytes())


def main():
    if not os.path.isdir(FIXTURES):
        print("no", FIXTURES)
        return 77
    canon = canonical()
    canon.attention = attention(canon)       # with kv="f32" it gets keys and values as they are
    model = os.path.join(FIXTURES, "qwen3_moe")
    cfg, w = canon.load(model, False)
    tensors, bad, n = {}, 0, 0
    with np.errstate(all="ignore"), tempfile.TemporaryDirectory(prefix="kt-kv-") as folder:
        for s, length in enumerate((7, 66, 275)):
            ids = np.random.default_rng(length).integers(0, w["embed"].shape[0], length).astype(np.int32)
            z = np.ascontiguousarray(canon.run(cfg, w, ids, "f32").astype(F))
            rows = np.arange(length) if length < 100 else np.array([0, 63, 64, 254, 255, 256, length - 1])
            tensors.update({f"{s}.ids": ids, f"{s}.rows": rows.astype(np.int32), f"{s}.logits": np.ascontiguousarray(z[rows])})
        golden = os.path.join(folder, "golden")
        write(golden, tensors)
        for level in ("ref", "avx2", "avx512", "avx512vnni"):
            for more in (["--threads", "1"], ["--threads", "2", "--batch", "6", "--chunk", "37"]):
                args = [model, golden, "--exact", "--kv-type", "int8", "--cpu-mask", level, *more]
                r = subprocess.run([KTTUNE, "check-model", *args], capture_output=True, text=True)
                if r.returncode != 0 and "has only" in r.stderr:
                    continue
                n += 1
                if r.returncode != 0:
                    print("NOT EQUAL: check-model", " ".join(args), (r.stdout + r.stderr)[-600:])
                    bad += 1
        other = subprocess.run([KTTUNE, "check-model", model, golden, "--exact", "--kv-type", "bf16"], capture_output=True)
        if other.returncode == 0:
            print("BF16 keys and values were said to equal INT8 ones")
            bad += 1
    print(f"{n} comparisons, {bad} not equal")
    return 1 if bad else 0


sys.exit(main())
