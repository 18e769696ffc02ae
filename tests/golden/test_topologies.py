"""test_topologies.py - kttune probe --topology on every shared topology (KT_FIXTURES/topologies: XML files, sysfs trees and CPUID dumps of hwloc and mpibind): the
decisions with their reasons, and the warnings with their remedies, as topologies.txt has them. A machine that is refused has its message there.

Besides, of every machine: the profile is valid against the schema (where python3-jsonschema can be imported), every decision says why and every warning what to do,
threads stay within their budget, no pool lies on a node without CPUs, and the same source gives the same decisions twice. What hwloc reads differs between its
versions, so the text is compared only with the version it was made with. KT_UPDATE_GOLDEN=1 writes it anew: look at the difference.
"""
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile

SRC = os.environ.get("KT_SRCDIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("KT_BUILDDIR", os.path.join(SRC, "build"))
KTTUNE = os.environ.get("KTTUNE", os.path.join(BUILD, "kttune"))
FIXTURES = os.path.join(os.environ.get("KT_FIXTURES", os.path.join(SRC, "../shared/fixtures")), "topologies")
GOLDEN = os.path.join(SRC, "tests/golden/topologies.txt")
KINDS = {"mpibind": "xml", "xml": "xml", "linux": "fsroot", "x86": "cpuid"}

try:
    import jsonschema

    with open(os.path.join(SRC, "profiles/host.schema.json")) as f:
        SCHEMA = jsonschema.Draft202012Validator(json.load(f))
except ImportError:
    SCHEMA = None


def sources(folder):
    """(name, SPEC) of every fixture; archives are unpacked."""
    for sub, kind in KINDS.items():
        for name in sorted(os.listdir(os.path.join(FIXTURES, sub))):
            path = os.path.join(FIXTURES, sub, name)
            if name.endswith(".tar.bz2"):
                to = os.path.join(folder, sub, name[:-8])
                with tarfile.open(path) as t:
                    t.extractall(to)
                tops = os.listdir(to)
                assert len(tops) == 1, (name, tops)
                yield f"{sub}/{name[:-8]}", f"{kind}:{to}/{tops[0]}"
            elif name.endswith(".xml"):
                yield f"{sub}/{name}", f"{kind}:{path}"


def short(value):
    """A decision's value in one line; pools as node, cores and CPUs."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "mems" in value[0]:
        return " ".join(f"{p['node']}({p['cores']}: {p['cpus']}{'' if p['local'] else ', remote'})" for p in value)
    return json.dumps(value)


def ranges(numbers):
    """[0, 1, 2, 8] as "0-2,8"."""
    out = []
    for n in numbers:
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def describe(doc):
    """Lines; threads of neighbours that differ only in the node are one line: threads.node0-3,8."""
    lines, last = [], None
    for d in doc["decisions"]:
        text = f" = {short(d['value'])} | {d['origin']}, {d['confidence']} | {d['why']} | {'; '.join(d.get('would_change_if', []))}"
        m = re.match(r"threads\.node(\d+)$", d["id"])
        if m and last and last[0] == text:
            last[1].append(int(m.group(1)))
            lines[-1] = f"threads.node{ranges(last[1])}{text}"
        else:
            lines.append((d["id"] + text).rstrip(" |"))
            last = (text, [int(m.group(1))]) if m else None
    for w in doc["warnings"]:
        lines.append(f"{w['code']} {w['severity']}, {w.get('about')} | {w['text']} | {w['fix']}")
    return lines


def properties(doc):
    """What must hold on any machine; gives what does not."""
    wrong = []
    by_id = {d["id"]: d for d in doc["decisions"]}
    nodes = {n["os"]: n for n in doc["topology"]["nodes"]}
    total = by_id["threads.total"]["value"]
    threads = [d["value"] for i, d in by_id.items() if re.match(r"threads\.(node\d+|all)$", i)]
    if not 0 < sum(threads) <= total or total > doc["environment"]["limits"]["cores_budget"]:
        wrong.append(f"threads {threads} of {total}")
    pools = by_id["pools"]["value"]
    for p in pools:
        if p["cores"] < 1 or not p["cpus"] or (p["node"] is not None and p["node"] >= 0 and not nodes[p["node"]]["cpuset"]):
            wrong.append(f"pool {p}")
        for m in p["mems"]:
            if not nodes[m]["allowed"] or nodes[m]["tier"] == "gpu" or nodes[m]["bytes"] == 0:
                wrong.append(f"pool {p['node']} has the memory of node {m}")
    if len(pools) != len(threads):
        wrong.append(f"{len(pools)} pools, {len(threads)} thread counts")
    wrong += [f"{d['id']} has no reason" for d in doc["decisions"] if not d["why"]]
    wrong += [f"{w['code']} has no remedy" for w in doc["warnings"] if not w["text"] or not w["fix"]]
    if SCHEMA is not None:
        wrong += [f"schema: {e.json_path}: {e.message}" for e in SCHEMA.iter_errors(doc)]
    return wrong


def probe(spec):
    p = subprocess.run([KTTUNE, "probe", "--topology", spec, "--json"], capture_output=True, text=True, timeout=120)
    return p.returncode, p.stdout, p.stderr


def look(name, spec):
    """Golden lines and what is wrong. Every fourth machine is asked twice."""
    code, out, err = probe(spec)
    if code != 0:
        return [f"refused ({code}): " + err.strip().replace(spec.split(":", 1)[1], "SOURCE").splitlines()[-1]], [], None
    doc = json.loads(out, parse_constant=lambda c: 1 / 0)
    wrong = properties(doc)
    again = json.loads(probe(spec)[1]) if sum(name.encode()) % 4 == 0 else doc
    if [again[k] for k in ("decisions", "warnings", "topology")] != [doc[k] for k in ("decisions", "warnings", "topology")]:
        wrong.append("another answer the second time")
    return describe(doc), wrong, doc["tool"]["hwloc"]


def main():
    if not os.path.isdir(FIXTURES):
        print(f"SKIP: no {FIXTURES}")
        return 77
    failed, text, version = 0, [], "none"
    with tempfile.TemporaryDirectory(prefix="kt-topo-") as folder:
        every = list(sources(folder))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda s: look(*s), every))
    for (name, _), (lines, wrong, hwloc) in zip(every, results):
        version = ".".join(hwloc.split(".")[:2]) if hwloc else version
        text += ["", f"== {name}", *lines]
        for w in wrong:
            failed += 1
            print(f"{name}: {w}")
    text[0] = f"# Decisions and warnings on every shared topology, as hwloc {version} reads them; made by test_topologies.py."
    if os.environ.get("KT_UPDATE_GOLDEN") == "1":
        with open(GOLDEN, "w") as f:
            f.write("\n".join(text) + "\n")
    with open(GOLDEN) as f:
        want = f.read().splitlines()
    if want[0] != text[0]:
        print(f"hwloc {version}: only the properties were checked, the text is of another version: {want[0]}")
    elif want != text:
        failed += 1
        for a, b in [(a, b) for a, b in zip(want, text) if a != b][:10]:
            print(f"want {a}\ngot  {b}")
        print(f"{len(want)} lines wanted, {len(text)} lines here")
    print(f"{len(every)} topologies, {'schema checked' if SCHEMA else 'no jsonschema'}, {failed} failures")
    return 1 if failed else 0


sys.exit(main())
