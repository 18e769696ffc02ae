#!/usr/bin/env python3
"""kttune bench kernels: the JSON has every variant with figures and shares, refuses what it cannot do, and its table names the same kernels.
kttune bench moe --paced: a sample of a short call is the mean of many calls, as without --paced. Times are not judged."""
import json
import os
import subprocess
import sys

KTTUNE = os.path.join(os.environ.get("KT_BUILDDIR", "."), "kttune")
QUICK = ["--rows", "48", "--k", "256", "--rounds", "3"]


def run(*args):
    return subprocess.run([KTTUNE, "bench", "kernels", *args], capture_output=True, text=True, timeout=100)


def check_figure(f, what):
    assert f["q1"] <= f["median"] <= f["q3"], what
    assert f["median"] > 0, what


def test_json():
    out = run("--format", "q8_0,bf16", "--tokens", "1,5", "--json", *QUICK)
    assert out.returncode == 0, out.stderr
    doc = json.loads(out.stdout)
    assert (doc["rows"], doc["k"], doc["rounds"]) == (48, 256, 3)
    assert doc["threads"] >= 1 and doc["set_bytes"] >= 4 * doc["llc_bytes"]
    assert [f["format"] for f in doc["formats"]] == ["q8_0", "bf16"]
    for f in doc["formats"]:
        check_figure(f["read_gb_s"], "read")
        assert {k["op"] for k in f["kernels"]} == {"gemv", "gemm"}
        assert {k["tokens"] for k in f["kernels"]} == {1, 5}
        for k in f["kernels"]:
            for key in ("gb_s", "gops", "read_ratio"):
                check_figure(k[key], k["kernel"] + " " + key)
            # operations per byte are fixed by the format: 1 byte of Q8_0 is 32 / 34 weights
            per_byte = 2 * k["tokens"] * (32 / 34 if f["format"] == "q8_0" else 0.5)
            assert abs(k["gops"]["median"] / k["gb_s"]["median"] / per_byte - 1) < 1e-6, k
            vector = "avx" in k["kernel"] and f["format"] == "q8_0"
            assert (k["scaled_ratio"]["median"] is not None) == vector, k
            loop = k["int8_ratio" if f["format"] == "q8_0" else "fma_ratio"]["median"]
            assert (loop is not None) == ("avx" in k["kernel"]), k
    return doc


def test_table(doc):
    out = run("--format", "q8_0", "--tokens", "1,5", *QUICK)
    assert out.returncode == 0, out.stderr
    for k in doc["formats"][0]["kernels"]:
        assert k["kernel"] in out.stdout, k["kernel"]


def test_refusals():
    for args in (["--format", "q9"], ["--format", ""], ["--tokens", "0"], ["--rounds", "2"], ["--cpu-mask", "sse"], ["more"],
                 ["--format", "q4_k", "--k", "96"], ["--kernel", "no such kernel", "--format", "q8_0"]):
        out = run(*args)
        assert out.returncode == 1 and out.stderr, args


def test_paced():
    """The operator takes far less than a sample's 30 ms, on any machine: the first call after a pause would be judged alone otherwise."""
    args = ["--experts", "4", "--topk", "2", "--hidden", "128", "--inter", "64", "--tokens", "1", "--format", "q8_0", "--threads", "1", "--paced"]
    p = subprocess.Popen([KTTUNE, "bench", "moe", *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "ready\n"
    p.stdin.write("\n")
    p.stdin.flush()
    row = json.loads(p.stdout.readline())
    p.stdin.close()
    assert p.wait(30) == 0
    assert row["calls"] > 1 and row["seconds"] > 0, row


def main():
    test_paced()
    doc = test_json()
    test_table(doc)
    test_refusals()
    print(f"{sum(len(f['kernels']) for f in doc['formats'])} rows")


if __name__ == "__main__":
    sys.exit(main())
