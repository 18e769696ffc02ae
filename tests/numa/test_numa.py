"""test_numa.py - ktserve's NUMA side on real NUMA kernels: machines of one to many unequal nodes are emulated (numa_vm.py), the demo model is loaded inside them, and
what the kernel says is held against what QEMU was told: pools and threads, every weight page on its pool's node, nothing on nodes without CPUs, every worker on one
CPU of its own, the topology that kttune reports, the level of the kernels, and an answer whose tokens and logits equal this host's bit for bit.

Arguments: names of machines (default: all). Exit codes: 0 pass, 1 fail, 77 what emulation needs is not installed (1 with CI=true).
"""
import json
import os
import re
import subprocess
import sys
import time

import numa_vm
from numa_vm import BUILD, SRC, Machine

FACTS = os.path.join(BUILD, "tests/numa/numa_facts")
KTTUNE = os.environ.get("KTTUNE", os.path.join(BUILD, "kttune"))
KTSERVE = os.environ.get("KTSERVE", os.path.join(BUILD, "ktserve"))
MODEL = os.path.join(SRC, "models/demo")
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

MACHINES = [
    Machine("1-node", [(640, "0-1")]),
    Machine("2-nodes", [(512, "0-1"), (384, "2")]),
    # two full nodes, one with fewer cores (a desk-sized 43-43-42), one with memory only
    Machine("4-nodes", [(384, "0-2"), (256, "3-5"), (256, "6-7"), (256, "")],
            distances={(a, b): 10 if a == b else 16 if {a, b} == {0, 1} else 28 for a in range(4) for b in range(4)}),
    # CPU numbers dealt out in turn, so that no pool is a range; one thread is kept back and two CPUs are switched off
    Machine("8-nodes", [(256, "0,8"), (128, "1,9"), (128, "2,10")] + [(128, str(i)) for i in range(3, 8)]),
]
# node numbers beyond 64, and a kernel whose CPU sets have more than 1024 bits; the CPUs of nodes 1 to 63 are off, and these nodes have next to no memory
MACHINES.append(Machine("66-nodes", [(384, "0")] + [(8, str(i)) for i in range(1, 64)] + [(256, "64"), (256, "65")], kernel_args="maxcpus=1 possible_cpus=1100"))
# processors older than the kernels' first level, and with that one alone: an instruction that they lack, anywhere in the programs, would end them
MACHINES += [Machine("no-avx", [(640, "0-1")], cpu="Nehalem"), Machine("avx2-only", [(640, "0-1")], cpu="Haswell")]
LEVEL = {"no-avx": "ref"}
SERVES = ("4-nodes", "no-avx", "avx2-only")
OFFLINE = {"8-nodes": [3, 8], "66-nodes": list(range(1, 64))}
PREPARE = {"8-nodes": "echo 0 >/sys/devices/system/cpu/cpu3/online; echo 0 >/sys/devices/system/cpu/cpu8/online; ",
           "66-nodes": "echo 1 >/sys/devices/system/cpu/cpu64/online; echo 1 >/sys/devices/system/cpu/cpu65/online; "}


def expected(machine):
    """Node -> (CPUs, threads): host-profile rules for a machine without limits: one thread per core, some kept back, one from the largest pool each time."""
    off = OFFLINE.get(machine.name, [])
    pools = {i: [c for c in cpus if c not in off] for i, cpus in enumerate(machine.cpus())}
    pools = {i: cpus for i, cpus in pools.items() if cpus}
    cores = sum(len(c) for c in pools.values())
    total = cores - (0 if cores < 4 else 1 if cores < 16 else 2)
    while total < len(pools):
        fewest = min(len(c) for c in pools.values())
        del pools[max(i for i, c in pools.items() if len(c) == fewest)]
    threads = {i: len(c) for i, c in pools.items()}
    while sum(threads.values()) > total:
        most = max(threads.values())
        threads[min(i for i, n in threads.items() if n == most)] -= 1
    return {i: (pools[i], threads[i]) for i in pools}


def ranges(numbers):
    """[0, 1, 2, 4] as the kernel writes it: ["0-2", "4"]."""
    out = []
    for n in numbers:
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return [str(a) if a == b else f"{a}-{b}" for a, b in out]


def cpu_list(text):
    out = []
    for part in text.split(",") if text else []:
        a, _, b = part.partition("-")
        out += range(int(a), int(b or a) + 1)
    return out


class Checks:
    """Collects what is wrong instead of stopping at the first."""

    def __init__(self):
        self.wrong = []

    def same(self, what, got, want):
        if got != want:
            self.wrong.append(f"{what}: {got!r}, expected {want!r}")

    def true(self, what, ok):
        if not ok:
            self.wrong.append(what)


def check_pools(c, machine, facts):
    want = expected(machine)
    c.same("pools", {p["node"]: (sorted(p["cpus"]), p["threads"]) for p in facts["pools"]}, {n: (sorted(cpus), t) for n, (cpus, t) in want.items()})
    total = sum(t for _, t in want.values())
    for p in facts["pools"]:
        c.true(f"share of node {p['node']} is {p['share']}", abs(p["share"] - want.get(p["node"], ([], 0))[1] / total) < 1e-5)


def check_weights(c, machine, facts):
    """Whole pages are counted, so a pool with few rows still has some."""
    several = len(machine.nodes) > 1
    for p in facts["pools"]:
        on = {int(n): k for n, k in p["pages"].items() if n != "absent"}
        c.same(f"nodes of the weight pages of pool {p['node']}", list(on), [p["node"]])
        c.true(f"pool {p['node']}: {on} pages for {p['bytes']} bytes", sum(on.values()) * 4096 >= p["bytes"] - 64 * 4096)
        if several:
            c.same(f"policy of pool {p['node']}", p["policy"], f"bind:{p['node']}")


def check_pages(c, machine, facts):
    several = len(machine.nodes) > 1
    check_weights(c, machine, facts)
    pools = set(expected(machine))
    for what in ("kv_pages", "scratch_pages"):
        c.true(f"{what} on nodes {facts[what]} outside the pools {pools}", {int(n) for n in facts[what] if n != "absent"} <= pools)
    for p, own in zip(facts["pools"], facts["own_pages"]):
        c.true(f"scratch of pool {p['node']} is on {own}", {n for n in own if n != "absent"} <= {str(p["node"])})
    if several:
        c.same("KV policy", facts["kv_policy"], "interleave:" + ",".join(ranges(sorted(pools))))


def check_library(c, machine, facts):
    """What the library counts equals what the kernel says, also after pages were moved away on purpose."""
    several = len(machine.nodes) > 1
    for p, says in zip(facts["pools"], facts["library"]):
        there = sum(n for k, n in p["pages"].items() if k != "absent")
        c.same(f"library on pool {p['node']}", says, {"node": p["node"], "share": p["share"], "pages": there if several else 0, "misplaced": 0, "known": True})
    if len(facts["pools"]) > 1:
        home = str(facts["pools"][0]["node"])
        away = sum(n for k, n in facts["spoiled"].items() if k not in ("absent", home))
        c.true("no page was moved away", away > 0)
        c.same("misplaced pages counted", [says["misplaced"] for says in facts["library_spoiled"]], [away] + [0] * (len(facts["pools"]) - 1))


def check_operator(c, machine, facts):
    """The expert operator without a model: the same rules for its pages."""
    several = len(machine.nodes) > 1
    c.same("pools of the operator", [p["node"] for p in facts["operator"]], [p["node"] for p in facts["pools"]])
    for p in facts["operator"]:
        on = {n: k for n, k in p["pages"].items() if n != "absent"}
        c.same(f"nodes of the operator's pages of pool {p['node']}", list(on), [str(p["node"])])
        c.true(f"operator, pool {p['node']}: {on} pages for {p['bytes']} bytes", sum(on.values()) * 4096 >= p["bytes"] - 64 * 4096)
        c.same(f"operator on pool {p['node']}", (p["count"], p["misplaced"], p["known"]), (sum(on.values()) if several else 0, 0, True))
        if several:
            c.same(f"policy of the operator's pool {p['node']}", p["policy"], f"bind:{p['node']}")


def check_threads(c, machine, facts):
    cpus = []
    for t in facts["threads"]:
        allowed = cpu_list(t["cpus"])
        c.true(f"thread {t['name']} may use CPUs {t['cpus']}", len(allowed) == 1 and (t["main"] or t["name"].startswith("kt-work")))
        cpus += allowed
    c.same("CPUs used twice", sorted(cpus), sorted(set(cpus)))
    for node, (own, threads) in expected(machine).items():
        c.same(f"workers of node {node}", len(set(own) & set(cpus)), threads)


def check_topology(c, machine, profile):
    topology = profile["topology"]
    off = OFFLINE.get(machine.name, [])
    c.same("source", (topology["source"], topology["this_system"]), ("native", True))
    cpus = [[x for x in node if x not in off] for node in machine.cpus()]
    c.same("nodes", [n["os"] for n in topology["nodes"]], list(range(len(machine.nodes))))
    c.same("CPUs", [cpu_list(n["cpuset"]) for n in topology["nodes"]], [sorted(x) for x in cpus])
    c.same("cores", topology["cores"], sum(len(x) for x in cpus))
    for n, (mib, _) in zip(topology["nodes"], machine.nodes):
        least = 0.6 * mib if mib > 32 else 0 # the kernel's own part of a small node is large
        c.true(f"node {n['os']} has {n['bytes']} bytes of {mib} MiB", least < n["bytes"] / 2**20 <= mib)
    pools = next(d for d in profile["decisions"] if d["id"] == "pools")
    c.same("pools decision", {p["node"]: p["mems"] for p in pools["value"]}, {n: [n] for n in expected(machine)})
    without = [i for i, x in enumerate(cpus) if not x]
    named = sorted(int(w["about"].split(".")[-1]) for w in profile["warnings"] if w["code"] == "KT004")
    c.same("nodes that KT004 names", named, without)
    matrix = [d for d in topology["distances"] if d["unit"] == "relative"]
    if machine.distances:
        c.same("distances", [d["values"] for d in matrix], [[[machine.distances[a, b] for b in range(len(cpus))] for a in range(len(cpus))]])


def judge(machine, out, here):
    c = Checks()
    if "full" in out:
        check_full(c, *out.pop("full"))
    if "serve" in out:
        check_serve(c, machine, *out.pop("serve"))
    for label, (code, text) in out.items():
        c.true(f"{label}: exit {code}\n{text[-2000:]}", code == 0)
    if c.wrong:
        return c.wrong
    facts = json.loads(out["facts"][1])
    if "reserved" in out:
        check_reserved(c, machine, facts, json.loads(out["reserved"][1]))
    check_pools(c, machine, facts)
    check_pages(c, machine, facts)
    check_library(c, machine, facts)
    check_operator(c, machine, facts)
    check_threads(c, machine, facts)
    check_topology(c, machine, json.loads(out["topology"][1]))
    c.same("kernels", facts["kernels"], LEVEL.get(machine.name, "avx2"))
    for key in ("tokens", "logits_hash"):
        c.same(f"{key} (kernels here {here['kernels']}, there {facts['kernels']})", facts[key], here[key])
    return c.wrong


# what is free comes and goes (caches of the boot), so node 1 is filled until little is left; huge pages are reserved on both nodes before
FULL = """for n in 0 1; do echo 24 >/sys/devices/system/node/node$n/hugepages/hugepages-2048kB/nr_hugepages; done
mkdir /tmp/fill; mount -t tmpfs -o mpol=bind:1,size=100% fill /tmp/fill
for i in 1 2 3 4 5 6; do
free=$(awk '/MemFree/ {print int($4 / 1024)}' /sys/devices/system/node/node1/meminfo); [ $free -gt 4 ] || break
dd if=/dev/zero of=/tmp/fill/$i bs=1M count=$((free - 3)) 2>/dev/null; sleep 0.2; done
grep -E 'MemFree|FilePages|Shmem:|Reclaim' /sys/devices/system/node/node1/meminfo
numa_facts /model"""
RESERVED = "numa_facts /model 16 hugetlb 2>/tmp/err || { cat /tmp/err /sys/devices/system/node/node*/hugepages/hugepages-2048kB/free_hugepages; false; }"
SERVE = """ktserve -m /model --port 8080 >/tmp/log 2>&1 & i=0
until wget -q -O /dev/null http://127.0.0.1:8080/ready || [ $i = 300 ]; do i=$((i + 1)); sleep 0.2; done
wget -q -O - http://127.0.0.1:8080/metrics | grep ^kt_numa_pages_misplaced
wget -q -O - --header 'Content-Type: application/json' \
  --post-data '{"messages":[{"role":"user","content":"What is the capital of France?"}],"temperature":0}' http://127.0.0.1:8080/v1/chat/completions
kill $!; wait $!"""


def check_full(c, code, text):
    """With node 1 filled, loading is refused by name before the kernel would end the process."""
    c.true(f"a full node: exit {code}\n{text[-1500:]}", code == 1 and "node 1 can give" in text and "Remedies" in text)


def check_reserved(c, machine, facts, there):
    """Weights in reserved pages do not need what a node has free beside them: on the full node 1 they load, each pool's on its own node."""
    check_weights(c, machine, there)
    for key in ("tokens", "logits_hash"):
        c.same(f"{key} from reserved pages", there[key], facts[key])


def check_serve(c, machine, code, text):
    c.true(f"ktserve: exit {code}\n{text[-1500:]}", code == 0 and "The capital of France is Paris." in text)
    got = dict(re.findall(r'kt_numa_pages_misplaced{node="(\w+)"} (\S+)', text))
    c.same("kt_numa_pages_misplaced", got, {str(n): "0" for n in expected(machine)})


def boot(machine):
    start = time.monotonic()
    commands = {
        "prepare": f"{PREPARE.get(machine.name, '')}cat /sys/devices/system/cpu/online",
        "facts": "numa_facts /model 2>/tmp/err || { cat /tmp/err; false; }",
        "topology": "kttune probe --topology-only --json",
    }
    if machine.name == "2-nodes":
        commands["full"] = FULL
        commands["reserved"] = RESERVED
    if machine.name in SERVES:
        commands["serve"] = SERVE
    files = {f"model/{f}": os.path.join(MODEL, f) for f in MODEL_FILES}
    return machine.run(commands, [FACTS, KTTUNE] + ([KTSERVE] if "serve" in commands else []), files), time.monotonic() - start


def main():
    chosen = [m for m in MACHINES if not sys.argv[1:] or m.name in sys.argv[1:]]
    if not chosen:
        print("machines:", " ".join(m.name for m in MACHINES))
        return 99
    for program in (FACTS, KTTUNE):
        if not os.access(program, os.X_OK):
            print(f"SKIP: {program} is not built")
            return 77
    try:
        numa_vm.tools()
    except numa_vm.Missing as e:
        must = os.environ.get("CI") == "true"
        print(f"{'FAIL' if must else 'SKIP'}: {e}")
        return 1 if must else 77
    here = json.loads(subprocess.run([FACTS, MODEL], capture_output=True, text=True, timeout=120, check=True).stdout)
    failed = 0
    for machine, result in zip(chosen, numa_vm.in_parallel([lambda m=m: boot(m) for m in chosen], 2)):
        wrong = [str(result)] if isinstance(result, Exception) else judge(machine, result[0], here)
        failed += bool(wrong)
        seconds = "" if isinstance(result, Exception) else f" ({result[1]:.0f} s)"
        print(f"{'FAIL' if wrong else 'ok'}: {machine.name}{seconds}")
        for line in wrong:
            print("  ", line)
    return 1 if failed else 0


sys.exit(main())
