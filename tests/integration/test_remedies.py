#!/usr/bin/env python3
"""test_remedies.py - whenever `kttune plan` refuses, it names three different ways out, cheapest first, and every one of them is true: with the options that it
gives, the same command accepts. All hosts of profiles/ with all models of profiles/shapes/, at several contexts, formats and limits. Pure: nothing is measured.
"""
import glob
import json
import os
import subprocess
import sys

SRC = os.environ.get("KT_SRCDIR", ".")
KTTUNE = os.path.join(os.environ.get("KT_BUILDDIR", "build"), "kttune")
ASKS = [
    [],
    ["--ctx", "32768", "--parallel", "16"],
    ["--format", "q2_k", "--format-dense", "q8_0", "--kv-type", "int8"],
    ["--format", "bf16", "--at", "4096", "--set", "limits.memory_max_bytes=24GB", "--set", "limits.memory_high_bytes=20GB"],
    ["--fast-tier", "auto", "--parallel", "4"],
]
# hosts without rates: two nodes, four small ones, three with one core each
TOPOLOGIES = ["syn:pack:2 [numa(memory=64GB)] core:8 pu:2", "syn:pack:1 group:4 [numa(memory=8GB)] core:3 pu:1", "syn:pack:3 [numa(memory=250GB)] core:1 pu:1"]


def plan(args):
    p = subprocess.run([KTTUNE, "plan", "--json", *args], capture_output=True, text=True)
    return p.returncode, (json.loads(p.stdout) if p.stdout else None), p.stderr


def check(args, wrong):
    """1 when it was refused, 0 when it fits, None when the options do not suit the model."""
    code, doc, text = plan(args)
    if code == 1 and "context are more than" in text:
        return None
    name = " ".join(args)
    if code == 0:
        return 0
    if code != 3:
        wrong.append(f"exit {code}: {name}: {text}")
        return None
    r = doc["remedies"]
    if len(r) != 3 or len({" ".join(x["options"]) for x in r}) != 3 or len({x["action"] for x in r}) != 3:
        wrong.append(f"{len(r)} remedies, not 3 different ones: {name}: {[x['action'] for x in r]}")
    if [x["cost"] for x in r] != sorted(x["cost"] for x in r) or any(x["cost"] <= 0 for x in r):
        wrong.append(f"not in order of cost: {name}")
    for x in r:
        code, again, text = plan([*args, *x["options"]])
        if code != 0 or not again["fits"]:
            wrong.append(f"exit {code}: {name} {' '.join(x['options'])} ({x['action']}): {text or again['refusal']}")
        if not x["price"]:
            wrong.append(f"no price: {name}: {x['action']}")
    return 1


def main():
    if not os.access(KTTUNE, os.X_OK):
        print("no kttune")
        return 77
    hosts = [["--profile", p] for p in sorted(glob.glob(os.path.join(SRC, "profiles/*.json"))) if not p.endswith("schema.json")] + [["--topology", t] for t in TOPOLOGIES]
    models = sorted(glob.glob(os.path.join(SRC, "profiles/shapes/*.config.json")))
    wrong, refused, fitted = [], 0, 0
    for host in hosts:
        for model in models:
            for ask in ASKS:
                got = check([*host, "-m", model, *ask], wrong)
                refused += got == 1
                fitted += got == 0
    for line in wrong[:20]:
        print("FAIL:", line)
    print(f"{len(hosts)} hosts, {len(models)} models: {refused} refusals with three remedies each, {fitted} that fit")
    return 1 if wrong or refused < 50 or fitted < 50 else 0


sys.exit(main())
