"""chart.py - the figures of peers.py drawn as one SVG: bars with quartiles, beside the ceiling of the run.

usage: chart.py FIGURES.json OUT.svg (peers.py --json writes the first, peers.py --svg calls this)

Decode and prefill of the whole model in tokens/s beside llama.cpp, with a tick where the ceiling of the run would be (read bandwidth, group-scaled int8 loop);
the operator in times kt-kernel; loading and long contexts as shares of their ceilings. Every number drawn is in the JSON; nothing is computed but lengths.
"""
import json
import sys
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, BAR, GAP = 860, 128, 160, 15, 12
STYLE = """
text{font:13px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}
.h{font-weight:600;font-size:15px}.n{fill:#59636e;font-size:12px}.e{text-anchor:end}
.a{fill:#0f766e}.b{fill:#b6bfc8}.g{fill:#0f766e;opacity:.45}.w{stroke:#1f2328;stroke-width:1.2}.c{stroke:#c2410c;stroke-width:2}.r{stroke:#d1d9e0}.k{fill:#ffffff}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.n{fill:#9198a1}.a{fill:#2dd4bf}.b{fill:#57606a}.g{fill:#2dd4bf}.w{stroke:#e6edf3}.c{stroke:#fb923c}.r{stroke:#3d444d}.k{fill:#0d1117}}
"""


class Chart:
    def __init__(self):
        self.out, self.y = [], 0

    def put(self, text):
        self.out.append(text)

    def text(self, x, y, s, kind=""):
        self.put(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(s)}</text>')

    def heading(self, title, note):
        self.y += 30
        self.text(16, self.y, title, "h")
        self.y += 18
        self.text(16, self.y, note, "n")
        self.y += 12

    def group(self, label, bars, top, ceiling=None):
        """bars: [(class, spread, caption)]; top: value at the right end; ceiling: a tick over all bars."""
        scale = (WIDTH - LEFT - RIGHT) / top
        begin = self.y
        for kind, s, caption in bars:
            if s is None:
                continue
            w = s["median"] * scale
            mid = self.y + BAR / 2
            self.put(f'<rect x="{LEFT}" y="{self.y:.1f}" width="{w:.1f}" height="{BAR}" rx="2" class="{kind}"/>')
            lo, hi = LEFT + s["q1"] * scale, min(LEFT + s["q3"] * scale, WIDTH - RIGHT + 20)
            self.put(f'<path d="M{lo:.1f} {mid:.1f}H{hi:.1f}M{lo:.1f} {mid - 3:.1f}v6M{hi:.1f} {mid - 3:.1f}v6" class="w"/>')
            self.text(WIDTH - 16, self.y + BAR - 3, caption, "n e")
            self.y += BAR + 2
        if ceiling:
            x = LEFT + min(ceiling * scale, WIDTH - LEFT - RIGHT + 20)
            self.put(f'<path d="M{x:.1f} {begin - 3:.1f}V{self.y + 1:.1f}" class="c"/>')
        self.text(LEFT - 10, (begin + self.y) / 2 + 3, label, "e")
        self.y += GAP

    def svg(self):
        h = self.y + 14
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {h:.0f}" width="{WIDTH}" height="{h:.0f}" role="img">\n<style>{STYLE}</style>\n'
            f'<rect width="{WIDTH}" height="{h:.0f}" rx="8" class="k"/>\n' + "\n".join(self.out) + "\n</svg>\n"
        )


def number(v):
    return f"{v:.0f}" if v >= 100 else f"{v:.1f}"


def models(c, rows, key, share, title, note):
    c.heading(title, note)
    tops = [s["q3"] for r in rows for s in (r[key]["ktserve"], r[key]["llama.cpp"]) if s]
    limit = {r["format"]: r[key]["ktserve"]["median"] / r[share]["median"] for r in rows if r[share] and r[share]["median"]}
    top = max(tops + [v for v in limit.values() if v < 2 * max(tops)])
    for r in rows:
        ours, theirs, ratio = r[key]["ktserve"], r[key]["llama.cpp"], r[key]["ratio"]
        bars = [("a", ours, f"{number(ours['median'])} tok/s" + (f",  {ratio['median']:.2f}x" if ratio else ""))]
        if theirs:
            bars.append(("b", theirs, f"{number(theirs['median'])}"))
        c.group(r["format"].upper(), bars, top, limit.get(r["format"]))


def operators(c, rows):
    c.heading("One MoE layer: times kt-kernel", "128 experts, 8 per token, 2048 x 768; dark: 1 token, light: 512 tokens; line: as fast as kt-kernel. Above 1: ktserve is faster")
    methods = list(dict.fromkeys(r["method"] for r in rows if r.get("ratio")))
    top = max(r["ratio"]["q3"] for r in rows if r.get("ratio"))
    for m in methods:
        bars = [
            ("a" if r["tokens"] == 1 else "g", r["ratio"], f"{r['ratio']['median']:.2f}x  ({number(r['ktserve_ms']['median'])} ms)")
            for r in rows
            if r["method"] == m and r.get("ratio")
        ]
        c.group(m, bars, top, 1)


def shares(c, rows, title, note):
    c.heading(title, note)
    for label, s in rows:
        c.group(label, [("a", s, f"{100 * s['median']:.0f} %")], 1.1, 1)


def main():
    with open(sys.argv[1]) as f:
        d = json.load(f)
    c = Chart()
    c.heading(f"ktserve on {d['cpu']}, {d['threads']} threads", f"medians and quartiles of {d['rounds']} interleaved rounds of one run; random weights; ./quickstart figures prints them")
    if d["models"]:
        last = d["models"][-1]
        what = f"{d['layers']} layers of Qwen3-30B-A3B; dark: ktserve, grey: llama.cpp; "
        models(c, d["models"], "decode_tok_s", "decode_bandwidth_ratio", "Decode, tokens/s", what + f"tick: what {last['read_gb_s']['median']:.1f} GB/s, the read bandwidth of the run, would give")
        models(c, d["models"], "prefill_tok_s", "prefill_scaled_ratio", f"Prefill of {d['prompt']} tokens, tokens/s", what + f"tick: the group-scaled int8 loop, {last['scaled_gops']['median']:.0f} GOPS")
    if any(r.get("ratio") for r in d["operators"]):
        operators(c, d["operators"])
    if d.get("context"):
        rows = [(r["kv_type"].upper() + " KV", r["share"]) for r in d["context"]]
        shares(c, rows, "Decode after 32,768 tokens: share of read bandwidth", "bytes of weights and of keys and values; line: the read bandwidth of the run")
    if d.get("load"):
        rows = [(f"{r['format'].upper()} {k}", r[k]) for r in d["load"] for k in ("cold", "warm")]
        shares(c, rows, "Loading and packing", "cold: share of a sequential read of the file from the disk; warm: share of a copy of the file into fresh memory")
    with open(sys.argv[2], "w") as f:
        f.write(c.svg())


if __name__ == "__main__":
    main()
