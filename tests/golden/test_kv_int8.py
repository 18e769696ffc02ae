"""INT8 keys and values against a reading in numpy, bit for bit.

The logits wanted are those of the golden fixtures' canonical.py, whose rounding of keys and values is replaced by this file's: per position and kv head one scale,
amax / 127, codes to nearest even by the reciprocal; an element is fl32(code * scale). Then check-model --exact on every ISA level of this CPU, alone and in ragged
batches, and with chunks that divide a block of 256 positions. Needs numpy; 77 without it (1 with CI=true) or without the fixtures.
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


def int8(x):
    """[positions, kv heads, dim] as INT8 pages give it back."""
    amax = np.abs(x).max(-1, keepdims=True)
    zero = amax < F(2.0 ** -100)
    scale = np.where(zero, F(0), amax / F(127)).astype(F)
    inv = np.where(zero, F(0), F(1) / np.where(zero, F(1), scale)).astype(F)
    code = np.clip(np.rint(x * inv), -127, 127).astype(F)
    return code * scale


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
    canon.bf16 = int8                        # what run() does to keys and values with kv="bf16"
    model = os.path.join(FIXTURES, "qwen3_moe")
    cfg, w = canon.load(model, False)
    tensors, bad, n = {}, 0, 0
    with np.errstate(all="ignore"), tempfile.TemporaryDirectory(prefix="kt-kv-") as folder:
        for s, length in enumerate((7, 66, 275)):
            ids = np.random.default_rng(length).integers(0, w["embed"].shape[0], length).astype(np.int32)
            z = np.ascontiguousarray(canon.run(cfg, w, ids, "bf16").astype(F))
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
