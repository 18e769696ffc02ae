"""Quantised checkpoints (FP8, INT8 per row, packed INT4) against a reading in numpy, bit for bit.

A golden model's BF16 weights are quantised here with numpy and written as the checkpoints that others publish: codes and scales in tensors of their own
(weight-formats 6 and 8). The logits wanted are those of the golden fixtures' canonical.py on the same codes and scales; this file adds what a matrix of each format
is. Then check-model --exact, default and --strict, on every ISA level of this CPU. Needs numpy; 77 without it (1 with CI=true) or without the fixtures.
"""
import json
import os
import shutil
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
F, I = np.float32, np.int64
TAG = {"BF16": np.uint16, "F32": np.float32, "F8_E4M3": np.uint8, "F8_E8M0": np.uint8, "I8": np.int8, "I32": np.int32, "I64": np.int64}


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


def write(path, tensors):
    """tensors: name -> (dtype tag, array)."""
    head, at = {}, 0
    for name, (tag, a) in tensors.items():
        assert a.dtype == TAG[tag], (name, a.dtype)
        head[name] = dict(dtype=tag, shape=list(a.shape), data_offsets=[at, at + a.nbytes])
        at += a.nbytes
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, a in tensors.values():
            f.write(np.ascontiguousarray(a).tobytes())


def to_bf16(x):
    b = np.ascontiguousarray(x, F).view(np.uint32).astype(np.uint64)
    return ((b + 0x7fff + ((b >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(h):
    return (h.astype(np.uint32) << 16).view(F)


def e4m3_values():
    c = np.arange(256)
    e, m = (c >> 3) & 15, c & 7
    v = np.where(e == 0, m * 2.0 ** -9, (1 + m / 8) * 2.0 ** (e - 7.0)) * np.where(c & 128, -1, 1)
    return np.where((c & 127) == 127, np.nan, v)


def to_e4m3(x):
    """Nearest code, ties to the even one."""
    good = e4m3_values()[:127]
    a = np.minimum(np.abs(x), 448)
    hi = np.clip(np.searchsorted(good, a), 1, 126)
    lo = hi - 1
    d = (a - good[lo]) - (good[hi] - a)
    code = np.where((d > 0) | ((d == 0) & (hi % 2 == 0)), hi, lo)
    return (code | np.where(np.signbit(x), 128, 0)).astype(np.uint8)


def scale_tensor(kind, s):
    """Stored scales and the fp32 values that a reader sees."""
    if kind == "BF16":
        h = to_bf16(s)
        return ("BF16", h), from_bf16(h)
    if kind == "E8M0":
        e = np.ceil(np.log2(s)).astype(np.int64) + 127
        return ("F8_E8M0", e.astype(np.uint8)), np.ldexp(1.0, e - 127).astype(F)
    return ("F32", s.astype(F)), s.astype(F)


class Fp8:
    """Scales per 128 x 128 block, per row, or one."""

    def __init__(self, kind, shape):
        self.kind, self.shape = kind, shape

    def make(self, name, w):
        rows, cols = w.shape
        if self.shape == "block":
            tall, wide = -(-rows // 128), -(-cols // 128)
            pad = np.zeros((tall * 128, wide * 128), F)
            pad[:rows, :cols] = w
            amax = np.abs(pad).reshape(tall, 128, wide, 128).max((1, 3))
        else:
            amax = np.abs(w).max(1, keepdims=True) if self.shape == "row" else np.abs(w).max().reshape(1)
        stored, s = scale_tensor(self.kind, amax / F(448))
        full = np.repeat(np.repeat(s, 128, 0), 128, 1)[:rows, :cols] if self.shape == "block" else np.broadcast_to(s, w.shape)
        code = to_e4m3((w / full).astype(np.float64))
        suffix = {"block": "weight_scale_inv", "row": "weight_scale", "one": "weight_scale"}[self.shape]
        if self.kind == "E8M0":
            suffix = "scale"
        real = (e4m3_values()[code].astype(F) * full).astype(F)
        return {name + ".weight": ("F8_E4M3", code), f"{name}.{suffix}": stored}, canon.Plain(real), canon.Plain(real)


class RowProduct:
    """INT8 with one scale per row: the activations of a token have one scale too, and the dot product is one integer."""

    def __init__(self, code, scale):
        self.code, self.scale = code.astype(I), scale.astype(F)

    def __call__(self, x):
        amax = np.abs(x).max(-1)
        zero = amax < F(2.0 ** -100)
        scale = np.where(zero, F(0), amax / F(127)).astype(F)
        inv = np.where(zero, F(0), F(1) / np.where(zero, F(1), scale)).astype(F)
        q = np.clip(np.rint(x * inv[:, None]), -127, 127).astype(I)
        return (q @ self.code.T).astype(F) * (self.scale[None] * scale[:, None])


class Int8:
    def __init__(self, kind):
        self.kind = kind

    def make(self, name, w):
        stored, s = scale_tensor(self.kind, np.abs(w).max(1, keepdims=True) / F(127))
        code = np.clip(np.rint(w / s), -128, 127).astype(np.int8)
        real = (code.astype(F) * s).astype(F)
        return {name + ".weight": ("I8", code), name + ".weight_scale": stored}, RowProduct(code, s[:, 0]), canon.Plain(real)


class Int4:
    def __init__(self, group):
        self.group = group

    def make(self, name, w):
        rows, cols = w.shape
        group = min(self.group, cols)
        g = w.reshape(rows, -1, group)
        h = to_bf16(np.abs(g).max(-1) / F(7))
        s = from_bf16(h)
        code = np.clip(np.rint(g / np.where(s == 0, 1, s)[..., None]), -8, 7).astype(I).reshape(rows, cols)
        word = ((code + 8).reshape(rows, -1, 8) << (4 * np.arange(8))).sum(-1).astype(np.uint32).view(np.int32)
        d = np.repeat(s, group // 32, 1)
        shape = ("I64" if self.group == 32 else "I32", np.array([rows, cols], np.int64 if self.group == 32 else np.int32))
        real = (code.astype(F) * np.repeat(d, 32, 1)).astype(F)
        return ({name + ".weight_packed": ("I32", word), name + ".weight_scale": ("BF16", h), name + ".weight_shape": shape},
                canon.Groups(code, d), canon.Plain(real))


def build(model, fmt, dense, folder):
    """Write the checkpoint; returns cfg and the matrices of both modes."""
    raw = canon.read_bf16(os.path.join(model, "model.safetensors"))
    out, exact, strict = {}, {}, {}
    for name, w in raw.items():
        stem = name.removesuffix(".weight")
        chosen = w.ndim == 2 and (".experts." in name or (dense and ".self_attn." in name))
        if chosen:
            tensors, exact[name], strict[name] = fmt.make(stem, w)
            out.update(tensors)
        else:
            out[name] = ("BF16", to_bf16(w))
    c = json.load(open(os.path.join(model, "config.json")))
    c["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]} if isinstance(fmt, Fp8) else {"quant_method": "compressed-tensors"}
    json.dump(c, open(os.path.join(folder, "config.json"), "w"))
    write(os.path.join(folder, "model.safetensors"), out)
    cfg, w = canon.load(model, False)
    modes = []
    for chosen in (exact, strict):
        m = dict(w)
        for i in range(cfg["layers"]):
            p = f"model.layers.{i}."
            for a in "qkvo":
                m[f"{i}.{a}"] = chosen.get(p + f"self_attn.{a}_proj.weight", w[f"{i}.{a}"])
            for k in ("gate", "up", "down"):
                m[f"{i}.{k}"] = [chosen[p + f"mlp.experts.{e}.{k}_proj.weight"] for e in range(len(w[f"{i}.{k}"]))]
        modes.append(m)
    return cfg, modes


def wanted(path, cfg, w):
    rng = np.random.default_rng(3)
    out = {}
    for s, n in enumerate((9, 1)):
        ids = rng.integers(0, len(w["embed"]), n).astype(np.int32)
        out[f"{s}.ids"] = ("I32", ids)
        out[f"{s}.logits"] = ("F32", np.ascontiguousarray(canon.run(cfg, w, ids, "f32").astype(F)))
    write(path, out)


def check(name, *args):
    """True: equal bits. None: not on this CPU."""
    r = subprocess.run([KTTUNE, "check-model", *args, "--exact"], capture_output=True, text=True)
    text = r.stdout + r.stderr
    if r.returncode != 0 and "has only" in text:
        return None
    if r.returncode != 0:
        print(f"NOT EQUAL: {name}: check-model {' '.join(args)} --exact\n{text[-600:]}")
    return r.returncode == 0


def variant(name, model, fmt, dense):
    folder, bad, n = tempfile.mkdtemp(prefix="kt-ckpt-"), 0, 0
    try:
        cfg, modes = build(os.path.join(FIXTURES, model), fmt, dense, folder)
        for mode, w in zip(("default", "strict"), modes):
            golden = os.path.join(folder, mode + ".golden")
            wanted(golden, cfg, w)
            kv = ["--strict"] if mode == "strict" else ["--kv-type", "f32"]
            for level in ("ref", "avx2", "avx512", "avx512vnni"):
                ok = check(name, folder, golden, *kv, "--cpu-mask", level, "--threads", "2")
                n += ok is not None
                bad += ok is False
            bad += not check(name, folder, golden, *kv, "--threads", "1", "--batch", "6", "--chunk", "4")
            n += 1
    finally:
        shutil.rmtree(folder)
    print(f"{name}: {n} comparisons, {bad} not equal", flush=True)
    return bad


EXPERT = "model.layers.1.mlp.experts.3.up_proj"
STEM = "model.layers.1.self_attn.q_proj"


def refused(name, words, change):
    """A checkpoint that `change` damaged must be refused with a message that holds all words."""
    folder = tempfile.mkdtemp(prefix="kt-ckpt-")
    try:
        model = os.path.join(FIXTURES, "qwen3_moe")
        shutil.copy(os.path.join(model, "config.json"), folder)
        tensors = {n: ("BF16", to_bf16(w)) for n, w in canon.read_bf16(os.path.join(model, "model.safetensors")).items()}
        stem = STEM
        w = from_bf16(tensors.pop(stem + ".weight")[1])
        change(tensors, stem, w)
        write(os.path.join(folder, "model.safetensors"), tensors)
        r = subprocess.run([KTTUNE, "check-model", folder, os.path.join(model, "golden.safetensors")], capture_output=True, text=True)
        inspect = subprocess.run([KTTUNE, "inspect", folder], capture_output=True, text=True)
    finally:
        shutil.rmtree(folder)
    good = r.returncode not in (0, -6, -11) and all(x in r.stderr for x in words) and (stem in r.stderr or "expert" in name) and "  total " in inspect.stdout
    if not good:
        print(f"{name}: not refused as it should be: exit {r.returncode}: {r.stderr[-300:]} inspect: {inspect.stdout[-300:]}{inspect.stderr[-300:]}")
    return not good


def with_int4(more):
    """more(tensors, stem): changes after the packed tensors are in."""
    def change(tensors, stem, w):
        tensors.update(Int4(32).make(stem, w)[0])
        more(tensors, stem)
    return change


def zero_point(t, stem):
    t[stem + ".weight_zero_point"] = ("I32", np.zeros((8, 4), np.int32))


def wrong_shape(t, stem):
    t[stem + ".weight_shape"] = ("I64", np.array([64, 96], np.int64))


def lost_scale(t, stem):
    del t[stem + ".weight_scale"]


def group_48(t, stem):
    t[stem + ".weight_scale"] = ("BF16", np.zeros((128, 3), np.uint16))


def infinite(t, stem):
    t[stem + ".weight_scale"][1][5, 1] = 0x7f80


def one_expert(t, stem, w):
    t[stem + ".weight"] = ("BF16", to_bf16(w))
    t.update(Int4(32).make(EXPERT, from_bf16(t.pop(EXPERT + ".weight")[1]))[0])


def raw_fp8(t, stem, w):
    t[stem + ".weight"] = ("F8_E4M3", to_e4m3(w))


def fp8_tiles(t, stem, w):
    raw_fp8(t, stem, w)
    t[stem + ".weight_scale_inv"] = ("F32", np.ones((2, 2), F))


def fp8_nan(t, stem, w):
    raw_fp8(t, stem, w)
    t[stem + ".weight"][1][2, 7] = 0xff
    t[stem + ".weight_scale_inv"] = ("F32", np.ones((1, 1), F))


REFUSED = [
    ("zero points", ("zero points", "symmetric"), with_int4(zero_point)),
    ("weight_shape", ("says 64 x 96", "128 x 128"), with_int4(wrong_shape)),
    ("no scales", ("weight_scale beside",), with_int4(lost_scale)),
    ("groups of 43", ("per group of 32",), with_int4(group_48)),
    ("an infinite scale", ("row 5",), with_int4(infinite)),
    ("scales of other blocks", ("per 128 x 128 block", "2 x 2"), fp8_tiles),
    ("one expert of another kind", ("layer 1: expert 3 is int4 where expert 0 is bf16",), one_expert),
    ("a NaN code", ("row 2",), fp8_nan),
    ("codes without scales", ("f8_e4m3", "no kernel takes"), raw_fp8),
]

if not os.path.isdir(FIXTURES):
    print("no", FIXTURES)
    sys.exit(77)
canon = canonical()
VARIANTS = [
    ("fp8, blocks of 128 x 128", "qwen3_moe_k256", Fp8("F32", "block"), True),
    ("fp8, blocks, partial, BF16 scales", "qwen3_moe", Fp8("BF16", "block"), True),
    ("fp8, blocks, E8M0 scales", "qwen3_moe_k256", Fp8("E8M0", "block"), False),
    ("fp8, per row", "qwen3_moe", Fp8("BF16", "row"), True),
    ("fp8, one scale", "qwen3_moe", Fp8("F32", "one"), False),
    ("int8, per row, experts", "qwen3_moe", Int8("BF16"), False),
    ("int8, per row, everything", "qwen3_moe_k256", Int8("F32"), True),
    ("int4, groups of 32", "qwen3_moe", Int4(32), False),
    ("int4, groups of 128, attention too", "qwen3_moe_k256", Int4(128), True),
]
sys.exit(1 if sum(variant(*v) for v in VARIANTS) + sum(refused(*r) for r in REFUSED) else 0)
