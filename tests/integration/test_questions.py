"""test_questions.py - the demo model answers its questions through the unmodified openai client, streaming and not.

Modes (arguments pick some): strict must give the reference's text wherever its smallest margin exceeds 0.1; q8_0 and mxfp4 are judged by meaning, at least 95 %
and 85 % of the answers must contain what they must. Without the openai package: skip (77), or fail when CI=true. KT_OPENAI_PYTHON names an interpreter that has it.
"""
import json
import os
import sys

import kts

try:
    import openai
except ImportError:
    other = os.environ.get("KT_OPENAI_PYTHON")
    if other and os.path.exists(other) and os.path.realpath(sys.prefix) != os.path.realpath(os.path.dirname(os.path.dirname(other))):
        env = {k: v for k, v in os.environ.items() if k != "KT_OPENAI_PYTHON"}
        os.execve(other, [other, *sys.argv], env)
    if os.environ.get("CI") == "true":
        print("FAIL: the openai package is missing and CI=true")
        sys.exit(1)
    kts.skip("no Python package openai")

MODES = {
    "default": ([], 0.95, None),
    "strict": (["--strict"], 0.95, 0.1),
    "q8_0": (["--quant", "q8_0", "--quant-dense", "q8_0"], 0.95, None),
    "mxfp4": (["--quant", "mxfp4"], 0.85, None),
}


def whole(client, question):
    r = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=160)
    assert r.choices[0].finish_reason in ("stop", "length") and r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    return r.choices[0].message.content, r.usage


def streamed(client, question):
    text, usage, finish = "", None, None
    for chunk in client.chat.completions.create(model="demo", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=160, stream=True,
                                                stream_options={"include_usage": True}):
        if chunk.usage:
            usage = chunk.usage
        for c in chunk.choices:
            text += c.delta.content or ""
            finish = c.finish_reason or finish
    assert finish in ("stop", "length")
    return text, usage


def ask_all(mode):
    args, share, margin = MODES[mode]
    with open(os.path.join(kts.MODEL, "questions.json"), encoding="utf-8") as f:
        rows = json.load(f)["questions"]
    good = same = must = 0
    with kts.Server(*args) as s:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{s.port}/v1", api_key="none", timeout=300, max_retries=0)
        assert [m.id for m in client.models.list()] == ["demo"]
        for r in rows:
            text, usage = whole(client, r["question"])
            text2, usage2 = streamed(client, r["question"])
            assert text == text2 and usage == usage2, (text, text2, usage, usage2)
            assert usage.prompt_tokens == r["prompt_tokens"], (usage, r)
            good += r["must_contain"] in text
            if r["must_contain"] not in text:
                print(f"     {r['question']} -> {text[:80]!r}, without {r['must_contain']!r}")
            if margin is not None and r["smallest_margin"] > margin:
                must += 1
                same += text == r["answer"]
                if text != r["answer"]:
                    print(f"     {r['question']} -> {text[:80]!r}, reference {r['answer'][:80]!r}, margin {r['smallest_margin']}")
        client.close()
    print(f"     {mode}: {good} of {len(rows)} right" + (f", {same} of {must} texts equal to the reference" if must else ""))
    assert good >= share * len(rows) and same == must


def default():
    ask_all("default")


def strict():
    ask_all("strict")


def q8_0():
    ask_all("q8_0")


def mxfp4():
    ask_all("mxfp4")


def errors_have_classes():
    with kts.Server() as s:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{s.port}/v1", api_key="none", timeout=60)
        for kind, call in (
            (openai.BadRequestError, dict(model="demo", messages=[{"role": "user", "content": "x"}], temperature=9)),
            (openai.NotFoundError, dict(model="other", messages=[{"role": "user", "content": "x"}])),
        ):
            before = s.metrics()
            try:
                client.chat.completions.create(**call)
                raise AssertionError("accepted")
            except kind:
                pass
            after = s.metrics()
            tried = sum(after[k] - before[k] for k in after if k.startswith('kt_http_requests_total{api="chat"'))
            assert tried == 1, tried  # a 4xx is not retried
        r = client.completions.create(model="demo", prompt="<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", temperature=0, logprobs=1, max_tokens=3)
        assert len(r.choices[0].logprobs.tokens) == 3
        stream = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "Tell me a story about a fox."}], stream=True)
        next(iter(stream))
        stream.close()
        client.close()


if __name__ == "__main__":
    kts.run([strict, q8_0, mxfp4, default, errors_have_classes])
