"""peers.py - our speed beside llama.cpp's and kt-kernel's on this machine, in one run, with the ceilings of that run.

usage: peers.py [--rounds N] [--formats F,..] [--methods M,..] [--load F,..] [--kv T,..] [--prompt N] [--gen N] [--threads N] [--json FILE] [--svg FILE]
(./quickstart figures calls it)

Whole model: a synthetic Qwen3-30B-A3B shape of 4 layers, one GGUF per format, read by both engines. Operator: one layer of experts, 1 and 512 tokens,
kt-kernel at the better of 1 and N threads. Each contender is a process of its own that runs one round when it is told to; in a round everybody has a turn,
in random order, while the others are stopped (SIGSTOP: a waiting engine may spin), and ratios are taken inside rounds. A peer that is not installed is
left out, with a line. Loading and decoding after 32,768 tokens have no peer: shares of the ceilings, from kttune's own interleaved rounds. Weights are
random: speed only, no token is judged here.
"""
import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.environ.get("KT_SRCDIR") or os.path.dirname(os.path.dirname(HERE))
KTTUNE = os.environ.get("KTTUNE") or os.path.join(TOP, "build", "kttune")
SHAPE = os.path.join(TOP, "profiles", "shapes", "qwen3-30b-a3b.config.json")
READY_SECONDS = 60  # load, and the rounds that warm up
OURS = {"INT8": "int8", "INT4": "q4_0", "RAWINT4": "int4", "MXFP4": "mxfp4", "BF16": "bf16", "FP8": "fp8"}  # kt-kernel's method -> our format


class Contender:
    """A process that runs one round per line; stopped while it is not its turn."""

    def __init__(self, name, command):
        env = dict(os.environ)
        for folder in sys.path:
            lib = os.path.join(folder, "llama_cpp", "lib")
            if os.path.isdir(lib):  # its libraries do not always find each other
                env["LD_LIBRARY_PATH"] = lib
        self.name = name
        self.log = tempfile.TemporaryFile()
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=env)
        guard = threading.Timer(READY_SECONDS, self.p.kill)  # a peer may be too slow for its turn, or hang
        guard.start()
        began = time.monotonic()
        try:
            self.until_ready()
        except RuntimeError as e:
            if time.monotonic() - began > READY_SECONDS - 1:
                raise RuntimeError(f"{self.name}: not ready after {READY_SECONDS} s, left out") from e
            raise
        finally:
            guard.cancel()
        self.p.send_signal(signal.SIGSTOP)

    def until_ready(self):
        for line in self.p.stdout:
            if line.strip() == "ready":
                return
        self.log.seek(0)
        raise RuntimeError(f"{self.name} ended: " + self.log.read().decode(errors="replace").strip()[-400:])

    def round(self):
        self.p.send_signal(signal.SIGCONT)
        self.p.stdin.write("\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"{self.name} ended: " + self.log.read().decode(errors="replace").strip()[-400:])
        self.until_ready()
        self.p.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def close(self):
        self.p.send_signal(signal.SIGCONT)
        self.p.stdin.close()
        try:
            self.p.wait(10)
        except subprocess.TimeoutExpired:
            self.p.kill()


def play(contenders, rounds, rng, title):
    """[{name: result}] of each round."""
    table = []
    for r in range(rounds):
        order = list(contenders)
        rng.shuffle(order)
        print(f"\r{title}: round {r + 1} of {rounds}   ", end="", file=sys.stderr, flush=True)
        table.append({c.name: c.round() for c in order})
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return table


def spread(values):
    values = [v for v in values if v is not None]
    if not values:
        return None
    q = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "q1": q[0], "q3": q[2]}


def start(name, command, contenders, missing):
    try:
        contenders.append(Contender(name, command))
    except RuntimeError as e:
        missing.append(str(e))


def synth(a, fmt, folder):
    path = os.path.join(folder, f"{fmt}.gguf")
    subprocess.run([KTTUNE, "synth", "--config", SHAPE, "--layers", str(a.layers), "--format", fmt, "-o", path], check=True, stdout=subprocess.DEVNULL)
    return path


def whole_model(a, fmt, folder, rng):
    path = synth(a, fmt, folder)
    contenders, missing = [], []
    ours = [KTTUNE, "bench", "model", "-m", path, "--threads", str(a.threads), "--prompt", str(a.prompt), "--gen", str(a.gen), "--paced"]
    theirs = [sys.executable, os.path.join(HERE, "peer_llama.py"), path, str(a.threads), str(a.prompt), str(a.gen)]
    start("ktserve", ours, contenders, missing)
    start("llama.cpp", theirs, contenders, missing)
    try:
        table = play(contenders, a.rounds, rng, f"{fmt}, whole model")
    finally:
        for c in contenders:
            c.close()
        os.unlink(path)
    row = {"format": fmt, "missing": missing}
    for key in ("decode_tok_s", "prefill_tok_s"):
        mine = [t["ktserve"][key] for t in table if "ktserve" in t]
        row[key] = {"ktserve": spread(mine), "llama.cpp": spread([t["llama.cpp"][key] for t in table if "llama.cpp" in t])}
        row[key]["ratio"] = spread([t["ktserve"][key] / t["llama.cpp"][key] for t in table if len(t) == 2])
    for key in ("decode_bandwidth_ratio", "prefill_int8_ratio", "prefill_scaled_ratio", "read_gb_s", "int8_gops", "scaled_gops"):
        row[key] = spread([t["ktserve"].get(key) for t in table if "ktserve" in t])
    return row


def operator(a, method, tokens, rng):
    contenders, missing = [], []
    method, _, exact = method.partition(":")
    ours = [KTTUNE, "bench", "moe", "--format", OURS[method], "--experts", "128", "--topk", "8", "--hidden", "2048", "--inter", "768", "--tokens", str(tokens), "--threads", str(a.threads), "--paced"]
    if method in ("BF16", "FP8") and not exact:  # theirs takes activations in BF16
        ours.append("--fast-bf16")
    start("ktserve", ours, contenders, missing)
    for threads in sorted({1, a.threads}):
        start(f"kt-kernel {threads}", [sys.executable, os.path.join(HERE, "peer_kt_kernel.py"), method, str(threads), str(tokens)], contenders, missing)
    try:
        table = play(contenders, a.rounds, rng, f"{method}, {tokens} tokens")
    finally:
        for c in contenders:
            c.close()
    name = method + (" canonical" if exact else "")
    row = {"method": name, "format": OURS[method], "tokens": tokens, "missing": missing}
    peers = [c.name for c in contenders if c.name != "ktserve"]
    mine = {c.name for c in contenders} >= {"ktserve"}
    row["ktserve_ms"] = spread([1e3 * t["ktserve"]["seconds"] for t in table]) if mine else None
    if peers:  # the better thread count over the whole run, then paired by round
        best = min(peers, key=lambda n: statistics.median(t[n]["seconds"] for t in table))
        row["peer"] = best + " thread" + ("s" if not best.endswith(" 1") else "") + " (" + table[0][best]["variant"] + ")"
        row["peer_ms"] = spread([1e3 * t[best]["seconds"] for t in table])
        row["ratio"] = spread([t[best]["seconds"] / t["ktserve"]["seconds"] for t in table]) if mine else None
    for key in ("bandwidth_ratio", "int8_ratio", "scaled_ratio"):
        row[key] = spread([t["ktserve"].get(key) for t in table]) if mine else None
    return row


def bench(*args):
    """kttune bench with interleaved rounds of its own -> its JSON; key + _q1, _q3 are the quartiles."""
    p = subprocess.run([KTTUNE, "bench", *args, "--quiet", "--json"], stdout=subprocess.PIPE, text=True, check=True)
    d = json.loads(p.stdout)
    return d, lambda key: {"median": d[key], "q1": d[key + "_q1"], "q3": d[key + "_q3"]}


def load_figures(a, fmt, folder):
    path = synth(a, fmt, folder)
    d, at = bench("load", "-m", path, "--threads", str(a.threads), "--rounds", str(max(a.rounds, 3)))
    os.unlink(path)
    return {
        "format": fmt, "file_bytes": d["file_bytes"], "beside_bytes": d["peak_resident_bytes"] - d["engine_bytes"], "disk_gb_s": at("disk_gb_s"), "copy_gb_s": at("copy_gb_s"),
        "cold": at("cold_ratio"), "warm": at("warm_ratio"),
    }


def context_figures(a, folder):
    path = synth(a, a.context_format, folder)
    rows = []
    for kv in a.kv.split(","):
        d, at = bench("model", "-m", path, "--threads", str(a.threads), "--ctx", "32768", "--kv-type", kv, "--prompt", "16", "--rounds", str(max(a.rounds, 3)))
        rows.append({"kv_type": kv, "format": a.context_format, "decode_tok_s": at("decode_tok_s"), "share": at("decode_bandwidth_ratio"), "read_gb_s": at("read_gb_s")})
    os.unlink(path)
    return rows


def cell(s, k=1.0, form="%.1f"):
    return "-" if not s else f"{form % (s['median'] * k)} ({form % (s['q1'] * k)}-{form % (s['q3'] * k)})"


def print_models(rows, a):
    print(f"\nWhole model, {a.layers} layers of Qwen3-30B-A3B, {a.threads} threads, {a.rounds} rounds: median (quartiles)")
    print(f"{'format':8} {'':8} {'ktserve tok/s':>24} {'llama.cpp tok/s':>24} {'times':>18} {'of the ceiling, %':>34}")
    for r in rows:
        for key, name in (("decode_tok_s", "decode"), ("prefill_tok_s", "prefill")):
            if key == "decode_tok_s":
                share = cell(r["decode_bandwidth_ratio"], 100) + " read"
            elif r["prefill_scaled_ratio"]:
                share = cell(r["prefill_scaled_ratio"], 100) + " scaled"
            else:
                share = cell(r["prefill_int8_ratio"], 100) + " int8"
            print(f"{r['format']:8} {name:8} {cell(r[key]['ktserve']):>24} {cell(r[key]['llama.cpp']):>24} {cell(r[key]['ratio'], 1, '%.2f'):>18} {share:>34}")
        for line in r["missing"]:
            print(f"{r['format']:8} {line}")
    last = rows[-1]
    print(f"ceilings: read {cell(last['read_gb_s'])} GB/s, int8 loop {cell(last['int8_gops'], 1, '%.0f')} GOPS, group-scaled {cell(last['scaled_gops'], 1, '%.0f')} GOPS")


def print_operators(rows, a):
    print(f"\nMoE operator, 128 experts, 8 per token, 2048 x 768, {a.threads} threads, {a.rounds} rounds")
    print(f"{'method':10} {'format':7} {'tokens':>6} {'ktserve ms':>22} {'kt-kernel ms':>24} {'times':>18} {'of the ceiling, %':>26}  peer")
    for r in rows:
        share = cell(r["bandwidth_ratio"], 100) + " read" if r["tokens"] == 1 else cell(r["scaled_ratio"] or r["int8_ratio"], 100) + (" scaled" if r["scaled_ratio"] else " int8")
        print(
            f"{r['method']:10} {r['format']:7} {r['tokens']:6} {cell(r['ktserve_ms'], 1, '%.2f'):>22} {cell(r.get('peer_ms'), 1, '%.2f'):>24} "
            f"{cell(r.get('ratio'), 1, '%.2f'):>18} {share:>26}  {r.get('peer', '-')}"
        )
        for line in r["missing"]:
            print(f"{r['method']:8} {line}")


def print_load(rows):
    print("\nLoad and pack, file read from the disk (cold) or from the page cache (warm): median (quartiles)")
    print(f"{'format':8} {'file GB':>8} {'disk GB/s':>18} {'cold, % of it':>20} {'copy GB/s':>18} {'warm, % of it':>20} {'memory beside, GB':>18}")
    for r in rows:
        print(
            f"{r['format']:8} {r['file_bytes'] * 1e-9:8.2f} {cell(r['disk_gb_s']):>18} {cell(r['cold'], 100):>20} {cell(r['copy_gb_s']):>18} "
            f"{cell(r['warm'], 100):>20} {r['beside_bytes'] * 1e-9:18.3f}"
        )


def print_context(rows):
    print("\nDecode after 32,768 tokens, bytes of weights and of keys and values: median (quartiles)")
    print(f"{'KV':8} {'weights':8} {'tokens/s':>20} {'of the read ceiling, %':>24} {'read GB/s':>20}")
    for r in rows:
        print(f"{r['kv_type']:8} {r['format']:8} {cell(r['decode_tok_s']):>20} {cell(r['share'], 100):>24} {cell(r['read_gb_s']):>20}")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--gen", type=int, default=16)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--formats", default="mxfp4,q8_0,q4_0,q4_k,q6_k,iq4_xs", help="of the whole model; empty: none")
    p.add_argument("--methods", default="INT8,INT4,RAWINT4,MXFP4,BF16,BF16:exact,FP8,FP8:exact", help="of the operator; BF16 and FP8 with --fast-bf16 unless :exact; empty: none")
    p.add_argument("--load", default="mxfp4,q8_0", help="formats of the load figures; empty: none")
    p.add_argument("--kv", default="bf16,int8", help="KV types of the 32,768 token figures; empty: none")
    p.add_argument("--context-format", default="mxfp4", help="weight format of those")
    p.add_argument("--json", metavar="FILE", help="write the tables there as well")
    p.add_argument("--svg", metavar="FILE", help="draw them there")
    a = p.parse_args()
    rng = random.Random(1)
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown") + f" ({os.cpu_count()} CPUs)"
    print("cpu:", cpu)
    d = {"cpu": cpu, "threads": a.threads, "rounds": a.rounds, "layers": a.layers, "prompt": a.prompt, "models": [], "operators": [], "load": [], "context": []}
    with tempfile.TemporaryDirectory(prefix="kt-peers.") as folder:
        d["models"] = [whole_model(a, f, folder, rng) for f in a.formats.split(",") if f]
        if d["models"]:
            print_models(d["models"], a)
        d["operators"] = [operator(a, m, n, rng) for m in a.methods.split(",") if m for n in ((512,) if ":exact" in m else (1, 512))]
        if d["operators"]:
            print_operators(d["operators"], a)
        d["context"] = context_figures(a, folder) if a.kv else []
        if d["context"]:
            print_context(d["context"])
        d["load"] = [load_figures(a, f, folder) for f in a.load.split(",") if f]
        if d["load"]:
            print_load(d["load"])
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) if not a.json else open(a.json, "w") as f:
        json.dump(d, f, indent=1)
    if a.svg:
        subprocess.run([sys.executable, os.path.join(HERE, "chart.py"), f.name, a.svg], check=True)
    if not a.json:
        os.unlink(f.name)


if __name__ == "__main__":
    main()
