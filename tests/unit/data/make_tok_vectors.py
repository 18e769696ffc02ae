"""Make tok_vectors.json: what the Hugging Face `tokenizers` package answers for many pipelines over the demo model's vocabulary.

usage: make_tok_vectors.py DEMO_DIR > tok_vectors.json      (needs: pip install tokenizers==0.23.3)
Each group replaces parts of DEMO_DIR/tokenizer.json; test_tok.c does the same and compares ids. Characters are limited to those on which the
Unicode versions of all libraries agree (assigned before Unicode 10).
"""
import json
import random
import sys
import unicodedata

from tokenizers import Tokenizer

rng = random.Random(20)
DEMO = json.load(open(sys.argv[1] + "/tokenizer.json", encoding="utf-8"))


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def regex(r, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": r}, "behavior": behavior, "invert": invert}


def literal(s, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"String": s}, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def added(i, content, **flags):
    a = dict(id=i, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    a.update(flags)
    return a


QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")
U, W, K = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{U}*{W}+{K}|[^\r\n\p{{L}}\p{{N}}]?{U}+{W}*{K}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
V3 = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*"
      "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"]
SPECIAL = DEMO["added_tokens"]
MORE = SPECIAL + [added(1280, "<think>"), added(1281, "    "), added(1282, "  "), added(1283, "wOrdz", single_word=True),
                  added(1284, "LSqz", lstrip=True), added(1285, "RSqz", rstrip=True), added(1286, "\u00e9!", normalized=True),
                  added(1287, "<thinking>"), added(1288, "BOTHqz", lstrip=True, rstrip=True, special=True)]
GROUPS = [
    ("demo", {"type": "NFC"}, DEMO["pre_tokenizer"], SPECIAL, False, "qwen2"),
    ("gpt-2", None, byte_level(False, True), SPECIAL, False, "gpt-2"),
    ("gpt-2 prefix", None, byte_level(True, True), MORE, False, None),
    ("llama3", None, sequence(regex(LLAMA3), byte_level()), SPECIAL, True, "llama-bpe"),
    ("glm4", None, sequence(regex(LLAMA3), byte_level()), SPECIAL, False, "glm4"),
    ("qwen2 whole words", {"type": "NFC"}, sequence(regex(QWEN2), byte_level()), SPECIAL, True, None),
    ("smollm", None, sequence({"type": "Digits", "individual_digits": True}, byte_level(False, True)), MORE, False, "smollm"),
    ("deepseek-v3", None, sequence(*[regex(r) for r in V3], byte_level()), MORE, False, "deepseek-v3"),
    ("gpt-4o", None, sequence(regex(O200K), byte_level()), SPECIAL, False, "gpt-4o"),
    ("digits", None, sequence({"type": "Digits", "individual_digits": False}, {"type": "Punctuation", "behavior": "MergedWithPrevious"},
                              byte_level(True, True)), MORE, False, None),
    ("removed", {"type": "NFKC"}, sequence(regex(r"\s+", "Removed"), literal("-", "MergedWithNext"), literal("a", "MergedWithPrevious"),
                                           byte_level()), MORE, False, None),
    ("contiguous", {"type": "NFD"}, sequence(regex(r"\w", "Contiguous"), literal("..", "Contiguous", True), byte_level()), MORE, False, None),
    ("inverted", {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "Lowercase"}]},
     sequence(regex(r"\S+", "Removed", True), byte_level()), MORE, False, None),
    ("replace", {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "."}, "content": " dot "},
                                                     {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "<A>"},
                                                     {"type": "Prepend", "prepend": "x"}]},
     sequence({"type": "Whitespace"}, byte_level()), MORE, False, None),
    ("lines", None, sequence(regex(r"^\s+|\s+$"), regex(r"[^\S\n]+"), regex(r"\d+|\D\W"), byte_level()), SPECIAL, False, None),
    ("ends of lines", None, sequence(regex(r"\s+$"), byte_level()), SPECIAL, False, None),
]
SPACES = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e", "\u200b", "\x0b", "\x0c", "\u2009", "\ufeff", "   "]
BLOCKS = [(0xc0, 0x24f), (0x391, 0x3a1), (0x410, 0x44f), (0x5d0, 0x5ea), (0x620, 0x64a), (0x905, 0x939), (0xe01, 0xe3a), (0x3041, 0x3096),
          (0x30a1, 0x30fa), (0x4e00, 0x9fa5), (0xac00, 0xd7a3), (0x1f300, 0x1f64f), (0x2460, 0x24ff), (0x2160, 0x2188), (0xff01, 0xff5e),
          (0x3001, 0x303f), (0x1100, 0x11ff), (0x300, 0x36f), (0x660, 0x669)]


def piece():
    k = rng.random()
    if k < .45:
        return rng.choice("etaoin shrdlu ETAOIN \n 0123456789 The .. - a")
    if k < .6:
        return chr(rng.randint(32, 126))
    if k < .74:
        return rng.choice(SPACES)
    if k < .8:
        return rng.choice(["'s", "'S", "'\u017f", "'ll", "'RE", "n't", "'\u212a", "capital", " of"])
    if k < .86:
        return rng.choice([a["content"] for a in MORE] + ["<thin", "e\u0301!"])
    while True:
        c = chr(rng.randint(*rng.choice(BLOCKS)))
        if unicodedata.category(c) not in ("Cn", "Co"):
            return c


out = []
for name, normalizer, pre, tokens, whole, known in GROUPS:
    j = dict(DEMO, normalizer=normalizer, pre_tokenizer=pre, added_tokens=tokens)
    j["model"] = dict(DEMO["model"], ignore_merges=whole)
    t = Tokenizer.from_str(json.dumps(j))
    cases = []
    for i in range(24):
        text = "".join(piece() for _ in range(rng.choice([2, 5, 8, 13, 21])))
        cases.append([text, t.encode(text, add_special_tokens=False).ids])
    out.append(dict(name=name, normalizer=normalizer, pre_tokenizer=pre, added_tokens=tokens, ignore_merges=whole, pre=known, cases=cases))
print("[")
for i, g in enumerate(out):
    head = {k: v for k, v in g.items() if k != "cases"}
    print(json.dumps(head, separators=(",", ":"))[:-1] + ',"cases":[')
    print(",\n".join(json.dumps(c, separators=(",", ":")) for c in g["cases"]))
    print("]}" + ("," if i + 1 < len(out) else ""))
print("]")
