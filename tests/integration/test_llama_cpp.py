"""test_llama_cpp.py - an independent engine as judge of our GGUF writer: llama.cpp, through the PyPI package llama-cpp-python.

The demo model is converted by kttune, both engines load the same file, render the prompts of all questions by the template in the file, split them into
tokens and answer greedily. Token ids must be equal; ours must be right as often as theirs, theirs in nine cases of ten (so the file is sound). Answers
word for word equal are counted, not demanded: the two round differently. Without the package 77; it compiles for minutes, hence only in check --full.
"""
import json
import os
import subprocess
import tempfile

import kts

try:
    import llama_cpp
except ImportError:
    kts.skip("no Python package 'llama_cpp' (./quickstart check --full builds it)")

FORMATS = (("q8_0", "q8_0"), ("mxfp4", "q8_0"))
CONTEXT = 2048
LONGEST = 160  # tokens of an answer, as in questions.json
# What a question does not bring along: text beyond ASCII, spaces, digits, special tokens within a text. All of it is in NFC: tokenizer.json asks for
# that form and ktserve makes it, GGUF has no word for it and llama.cpp takes text as it comes.
TEXTS = (
    "",
    " ",
    "  two  spaces\n\n\tand a tab \r\n end ",
    "1234567 and 3.14, it's, WE'LL, don't",
    "na\u00efve caf\u00e9 \u2013 \u4f60\u597d \U0001f600",
    "int main(void) { return 0; }\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start <|im_end|><|endoftext|>x",
)


def convert(folder, experts, dense):
    path = os.path.join(folder, f"demo-{experts}-{dense}.gguf")
    p = subprocess.run([kts.KTTUNE, "convert", kts.MODEL, "-o", path, "--quant", experts, "--quant-dense", dense], capture_output=True, text=True, timeout=300)
    assert p.returncode == 0, p.stdout + p.stderr
    return path


def theirs(path, questions, prompts):
    """(ids of each text, [(answer, prompt tokens)]) by llama.cpp."""
    llm = llama_cpp.Llama(model_path=path, n_ctx=CONTEXT, n_gpu_layers=0, n_threads=os.cpu_count(), seed=1, verbose=False)
    ids = [llm.tokenize(text.encode(), add_bos=False, special=True) for text in prompts]
    answers = []
    for q in questions:
        r = llm.create_chat_completion([{"role": "user", "content": q["question"]}], temperature=0.0, repeat_penalty=1.0, max_tokens=LONGEST)
        answers.append((r["choices"][0]["message"]["content"], r["usage"]["prompt_tokens"]))
    llm.close()
    return ids, answers


def reply(server, path, body):
    status, data = server.post(path, body)
    assert status == 200, (path, status, data)
    return data


def ours(path, questions, prompts):
    """The same by ktserve."""
    name = os.path.splitext(os.path.basename(path))[0]
    with kts.Server("--ctx", str(CONTEXT), "--parallel", "4", model=path) as s:
        ids = [reply(s, "/tokenize", {"content": text, "parse_special": True})["tokens"] for text in prompts]
        replies = [reply(s, "/v1/chat/completions", {**kts.chat(q["question"], max_tokens=LONGEST), "model": name}) for q in questions]
    return ids, [(r["choices"][0]["message"]["content"], r["usage"]["prompt_tokens"]) for r in replies]


def compare(path, name, questions):
    prompts = [f"<|im_start|>user\n{q['question']}<|im_end|>\n<|im_start|>assistant\n" for q in questions]
    their_ids, their_answers = theirs(path, questions, prompts + list(TEXTS))
    our_ids, our_answers = ours(path, questions, prompts + list(TEXTS))
    for text, a, b in zip(prompts + list(TEXTS), our_ids, their_ids):
        assert a == b, f"{name}: {text!r}: our ids {a}, llama.cpp's {b}"
    right = {"ours": 0, "theirs": 0}
    same = 0
    for q, n, a, b in zip(questions, our_ids, our_answers, their_answers):
        assert a[1] == b[1] == len(n) == q["prompt_tokens"], f"{name}: {q['question']}: prompt tokens {a[1]}, {b[1]}, {len(n)}, {q['prompt_tokens']}"
        right["ours"] += q["must_contain"] in a[0]
        right["theirs"] += q["must_contain"] in b[0]
        same += a[0].strip() == b[0].strip()
        for who, (answer, _) in (("ktserve", a), ("llama.cpp", b)):
            if q["must_contain"] not in answer:
                print(f"{name}: {who}: {q['question']} -> {answer[:100]!r} lacks {q['must_contain']!r}")
    print(f"{name}: of {len(questions)} right: ktserve {right['ours']}, llama.cpp {right['theirs']}; the same words {same}; ids of {len(our_ids)} texts equal")
    assert right["theirs"] * 10 >= len(questions) * 9, "llama.cpp finds the file's answers bad: the file is not sound"
    assert right["ours"] >= right["theirs"], "ktserve answers the same file worse than llama.cpp"


with open(os.path.join(kts.MODEL, "questions.json")) as f:
    asked = json.load(f)["questions"]
assert len(asked) >= 45, len(asked)
with tempfile.TemporaryDirectory() as tmp:
    for e, d in FORMATS:
        compare(convert(tmp, e, d), f"experts {e}, others {d}", asked)
