"""kttune inspect, convert and synth, from outside: files that they write are read by the few lines of Python below, which share nothing with the C reader.

Exit codes: 0 pass, 1 fail, 77 no program.
"""
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile

BUILD = os.environ.get("KT_BUILDDIR", ".")
SOURCE = os.environ.get("KT_SRCDIR", ".")
KTTUNE = os.path.join(BUILD, "kttune")
DEMO = os.path.join(SOURCE, "models", "demo")
BLOCK = {0: (1, 4), 30: (1, 2), 8: (32, 34), 2: (32, 18), 39: (32, 17)}


def run(*args, code=0):
    p = subprocess.run([KTTUNE, *args], capture_output=True, text=True)
    assert p.returncode == code, f"kttune {' '.join(args)}: exit {p.returncode}, expected {code}\n{p.stdout}{p.stderr}"
    return p.stdout if code == 0 else p.stderr


def read_gguf(path):
    d = open(path, "rb").read()
    at = 0

    def num(fmt):
        nonlocal at
        v = struct.unpack_from("<" + fmt, d, at)[0]
        at += struct.calcsize("<" + fmt)
        return v

    def text():
        nonlocal at
        n = num("Q")
        at += n
        return d[at - n:at].decode()

    scalar = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def value(t):
        if t == 8:
            return text()
        if t == 9:
            kind, n = num("I"), num("Q")
            return [value(kind) for _ in range(n)]
        return num(scalar[t])

    assert num("I") == 0x46554747 and num("I") == 3
    n_tensors, n_kv = num("Q"), num("Q")
    meta = {}
    for _ in range(n_kv):
        key = text()
        assert key not in meta
        meta[key] = value(num("I"))
    infos = []
    for _ in range(n_tensors):
        name, nd = text(), num("I")
        dims = [num("Q") for _ in range(nd)]
        infos.append((name, dims, num("I"), num("Q")))
    align = meta["general.alignment"]
    start = (at + align - 1) // align * align
    tensors, end = {}, 0
    for name, dims, kind, offset in infos:
        assert offset == end, f"{name} is not where the one before ends"
        size = dims[0] // BLOCK[kind][0] * BLOCK[kind][1]
        for x in dims[1:]:
            size *= x
        tensors[name] = (dims, kind, d[start + offset:start + offset + size])
        assert len(tensors[name][2]) == size
        end = (offset + size + align - 1) // align * align
    assert start + end == len(d)
    return meta, tensors


def read_safetensors(path):
    d = open(path, "rb").read()
    n = struct.unpack_from("<Q", d)[0]
    head = json.loads(d[8:8 + n])
    return {k: d[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]] for k, v in head.items() if k != "__metadata__"}


def bf16(b):
    return [struct.unpack("<f", b"\0\0" + b[i:i + 2])[0] for i in range(0, len(b), 2)]


def half(b):
    return struct.unpack("<e", b)[0]


E2M1 = [0, .5, 1, 1.5, 2, 3, 4, 6]


def block_values(kind, b):
    """values and the largest rounding error that the block's scale allows"""
    if kind == 8:
        s = half(b[:2])
        return [s * c for c in struct.unpack("32b", b[2:])], abs(s) * .57
    low, high = [c & 15 for c in b[-16:]], [c >> 4 for c in b[-16:]]
    if kind == 2:
        s = half(b[:2])
        return [s * (c - 8) for c in low + high], abs(s) * 1.02
    s = 2.0 ** (b[0] - 127)
    return [s * E2M1[c & 7] * (-1 if c & 8 else 1) for c in low + high], s * 2


def check_close(kind, quantised, exact):
    n, size = BLOCK[kind]
    for i in range(len(exact) // n):
        got, bound = block_values(kind, quantised[i * size:(i + 1) * size])
        for g, e in zip(got, exact[i * n:(i + 1) * n]):
            assert abs(g - e) <= bound, (i, g, e, bound)


def test_convert(tmp):
    out = os.path.join(tmp, "demo.gguf")
    hf = read_safetensors(os.path.join(DEMO, "model.safetensors"))
    run("convert", DEMO, "-o", out)
    meta, t = read_gguf(out)
    assert meta["general.architecture"] == "qwen3moe" and meta["general.quantization_version"] == 2
    assert meta["qwen3moe.expert_count"] == 32 and meta["qwen3moe.expert_used_count"] == 4
    assert meta["tokenizer.ggml.model"] == "gpt2" and meta["tokenizer.ggml.pre"] == "qwen2"
    tok = json.load(open(os.path.join(DEMO, "tokenizer.json")))
    for text, i in tok["model"]["vocab"].items():
        assert meta["tokenizer.ggml.tokens"][i] == text and meta["tokenizer.ggml.token_type"][i] == 1
    for a in tok["added_tokens"]:
        assert meta["tokenizer.ggml.tokens"][a["id"]] == a["content"] and meta["tokenizer.ggml.token_type"][a["id"]] == 3
    assert [m if isinstance(m, str) else " ".join(m) for m in tok["model"]["merges"]] == meta["tokenizer.ggml.merges"]
    assert meta["tokenizer.ggml.eos_token_id"] == 1279 and meta["tokenizer.ggml.eot_token_id"] == 1277
    assert meta["tokenizer.chat_template"] == json.load(open(os.path.join(DEMO, "tokenizer_config.json")))["chat_template"]
    assert meta["general.sampling.temp"] == 0
    assert t["token_embd.weight"] == ([256, 1280], 30, hf["model.embed_tokens.weight"])
    assert t["blk.2.attn_k.weight"][2] == hf["model.layers.2.self_attn.k_proj.weight"]
    dims, kind, data = t["blk.1.ffn_down_exps.weight"]
    assert dims == [64, 256, 32] and kind == 30
    assert data == b"".join(hf[f"model.layers.1.mlp.experts.{e}.down_proj.weight"] for e in range(32))
    for name, src in (("blk.3.ffn_gate_inp.weight", "model.layers.3.mlp.gate.weight"), ("output_norm.weight", "model.norm.weight")):
        assert t[name][1] == 0 and list(struct.unpack(f"<{len(hf[src]) // 2}f", t[name][2])) == bf16(hf[src])
    for quant, dense, e_kind, d_kind in (("mxfp4", "q8_0", 39, 8), ("q4_0", "none", 2, 30)):
        run("convert", DEMO, "-o", out, "--quant", quant, "--quant-dense", dense)
        meta, t = read_gguf(out)
        assert t["output.weight"][1] == t["token_embd.weight"][1] == t["blk.0.attn_q.weight"][1] == d_kind
        assert t["blk.0.ffn_gate_inp.weight"][1] == 0
        dims, kind, data = t["blk.0.ffn_gate_exps.weight"]
        assert kind == e_kind
        size = len(data) // 32
        check_close(kind, data[5 * size:6 * size], bf16(hf["model.layers.0.mlp.experts.5.gate_proj.weight"]))
        if d_kind == 8:
            check_close(8, t["blk.0.attn_output.weight"][2], bf16(hf["model.layers.0.self_attn.o_proj.weight"]))
    again = run("inspect", out, "--json")
    assert json.loads(again)["can_be_served"] is True
    assert "a GGUF file already" in run("convert", out, "-o", out + "2", code=6)
    assert os.listdir(tmp) == ["demo.gguf"], os.listdir(tmp)


def test_convert_errors(tmp):
    out = os.path.join(tmp, "x.gguf")
    assert "mxfp4, q8_0, q4_0" in run("convert", DEMO, "-o", out, "--quant", "q3_k", code=1)
    assert "/nonexistent" in run("convert", "/nonexistent", "-o", out, code=1)
    assert "cannot create" in run("convert", DEMO, "-o", "/nonexistent/x.gguf", code=1)
    run("convert", DEMO, code=1)
    config = json.load(open(os.path.join(DEMO, "config.json")))
    bad = os.path.join(tmp, "model")
    os.mkdir(bad)
    os.symlink(os.path.abspath(os.path.join(DEMO, "model.safetensors")), os.path.join(bad, "model.safetensors"))
    tok = json.load(open(os.path.join(DEMO, "tokenizer.json")))
    for split in tok["pre_tokenizer"].get("pretokenizers", []):
        if split["type"] == "Split":
            split["pattern"] = {"Regex": r"\p{L}+|\p{N}|[^\p{L}\p{N}]"}
    json.dump(config, open(os.path.join(bad, "config.json"), "w"))
    json.dump(tok, open(os.path.join(bad, "tokenizer.json"), "w"))
    assert "split pattern" in run("convert", bad, "-o", out, code=6)
    os.unlink(os.path.join(bad, "tokenizer.json"))
    run("convert", bad, "-o", out)
    assert read_gguf(out)[0]["tokenizer.ggml.model"] == "no_vocab"
    os.unlink(out)
    assert os.listdir(tmp) == ["model"], os.listdir(tmp)


def test_synth(tmp):
    config = os.path.join(DEMO, "config.json")
    a, b, c = (os.path.join(tmp, n) for n in ("a.gguf", "b.gguf", "c.gguf"))
    for fmt in ("mxfp4", "q8_0", "bf16", "q4_0"):
        run("synth", "--config", config, "--layers", "2", "--format", fmt, "-o", a)
        meta, t = read_gguf(a)
        assert meta["qwen3moe.block_count"] == 2 and meta["tokenizer.ggml.model"] == "no_vocab"
        assert t["blk.1.ffn_up_exps.weight"][0] == [256, 64, 32] and "blk.2.attn_norm.weight" not in t
        dims, kind, data = t["blk.0.attn_q.weight"]
        if kind == 30:
            v = bf16(data)
        else:
            n, size = BLOCK[kind]
            v = [x for i in range(0, len(data), size) for x in block_values(kind, data[i:i + size])[0]]
        spread = (sum(x * x for x in v) / len(v) * dims[0]) ** .5
        assert .9 < spread < 1.1, (fmt, spread)
    run("synth", "--config", config, "--layers", "2", "--format", "q4_0", "-o", b)
    run("synth", "--config", config, "--layers", "2", "--format", "q4_0", "--seed", "2", "-o", c)
    assert open(a, "rb").read() == open(b, "rb").read() != open(c, "rb").read()
    assert "64 elements" in run("synth", "--config", config, "--format", "q4_k", "-o", c, code=6)
    assert "1 to 4" in run("synth", "--config", config, "--layers", "5", "-o", c, code=1)
    run("synth", "--config", config, "--layers", "x", "-o", c, code=1)


def test_killed_synth(tmp):
    """A large file that is interrupted leaves nothing (where the file system can do that: O_TMPFILE)."""
    here = os.path.join(tmp, "killed")
    os.mkdir(here)
    config = os.path.join(here, "config.json")
    shape = json.load(open(os.path.join(DEMO, "config.json")))
    shape.update(hidden_size=2048, moe_intermediate_size=2048, num_hidden_layers=8)
    json.dump(shape, open(config, "w"))
    p = subprocess.Popen([KTTUNE, "synth", "--config", config, "--format", "f32", "-o", os.path.join(here, "big.gguf")], stdout=subprocess.DEVNULL,
                         preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # who runs tests in the background ignores it
    try:
        p.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        p.send_signal(signal.SIGINT)
        assert p.wait() == -signal.SIGINT
        left = [f for f in os.listdir(here) if f != "config.json"]
        assert not left or not hasattr(os, "O_TMPFILE"), left


def test_names_the_file(tmp):
    bad = os.path.join(tmp, "bad-shape.json")
    open(bad, "w").write('{"hidden_size": 64,')
    assert "bad-shape.json: line" in run("synth", "--config", bad, "-o", os.path.join(tmp, "x.gguf"), code=6)
    assert "is a directory" in run("convert", DEMO, "-o", tmp, code=1)
    assert "this is JSON" in run("inspect", bad, code=6)


def test_inspect(tmp):
    j = json.loads(run("inspect", DEMO, "--json"))
    assert j["can_be_served"] and j["traits"]["layers"] == 4 and j["container"] == "safetensors"
    assert sum(p["bytes"] for p in j["parts"]) == j["weight_bytes"] == sum(t["bytes"] for t in j["tensors"])
    assert j["memory"]["kv_bytes_per_token_bf16"] == 2 * 4 * 2 * 32 * 2
    text = run("inspect", DEMO, "--tensors")
    assert "routed experts" in text and "model.layers.3.mlp.experts.31.down_proj.weight" in text
    shape = os.path.join(SOURCE, "profiles", "shapes", "qwen3-30b-a3b.config.json")
    assert json.load(open(shape))["num_experts"] == 128
    cut = os.path.join(tmp, "cut.gguf")
    run("synth", "--config", os.path.join(DEMO, "config.json"), "--layers", "1", "-o", cut)
    os.truncate(cut, os.path.getsize(cut) - 1)
    err = run("inspect", cut, code=6)
    assert cut in err and "download is incomplete" in err
    other = os.path.join(tmp, "other.gguf")
    key = b"general.architecture"
    open(other, "wb").write(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, 5) + b"gemma")
    assert "cannot be served by this version" in run("inspect", other)
    assert json.loads(run("inspect", other, "--json"))["can_be_served"] is False


def main():
    if not os.path.exists(KTTUNE):
        print("no kttune in the build directory")
        return 77
    for test in (test_convert, test_convert_errors, test_synth, test_killed_synth, test_names_the_file, test_inspect):
        with tempfile.TemporaryDirectory() as tmp:
            test(tmp)
        print("ok", test.__name__)
    return 0


sys.exit(main())
