"""test_profile_use.py - what ktserve does with a host profile: a matching one is used and exported, one of another host is refused (defaults, KT026) unless it is
trusted, an invalid or missing one stops the server with a message. Profiles are made here by kttune probe without measuring.
"""
import os
import subprocess
import tempfile

import kts

DIR = tempfile.mkdtemp()


def probe(name, *options):
    path = os.path.join(DIR, name)
    p = subprocess.run([kts.KTTUNE, "probe", "--topology-only", "-o", path, *options], capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, p.stdout + p.stderr
    return path


def state(server):
    m = server.metrics()
    on = [k for k, v in m.items() if k.startswith("kt_host_profile_state{") and v == 1]
    assert len(on) == 1, on
    return on[0].split('"')[1], m


def match():
    with kts.Server("--profile", probe("here.json")) as s:
        name, m = state(s)
        assert name == "match", (name, s.errors())
        assert m["kt_host_profile_timestamp_seconds"] > 1.7e9
        info = [k for k in m if k.startswith("kt_host_profile_info{")]
        assert len(info) == 1 and 'fingerprint="sha256:' in info[0], info
        assert s.post("/v1/chat/completions", kts.chat("What is the capital of France?"))[1]["choices"][0]["message"]["content"] == "The capital of France is Paris."


def other_host():
    path = probe("other.json", "--topology", "syn:pack:2 [numa(memory=64GB)] core:8 pu:2")
    with kts.Server("--profile", path) as s:
        assert state(s)[0] == "mismatch"
        assert "KT026" in s.errors() and "kttune probe" in s.errors(), s.errors()
        assert "kt_host_profile_timestamp_seconds" not in s.get("/metrics")[2].decode()
        assert s.post("/v1/chat/completions", kts.chat("What is the capital of Japan?"))[1]["choices"][0]["message"]["content"] == "The capital of Japan is Tokyo."


def none_is_said_once():
    with kts.Server() as s:
        assert state(s)[0] == "none"
        assert s.errors().count("no profile") == 1, s.errors()


def unusable():
    good = open(probe("cut.json"), "rb").read()
    for name, data, word in (("cut.json", good[: len(good) // 2], "cut.json"), ("empty.json", b"", "empty.json"), ("field.json", good.replace(b'"packages"', b'"packs"'), "packages")):
        path = os.path.join(DIR, name)
        with open(path, "wb") as f:
            f.write(data)
        p = subprocess.run([kts.KTSERVE, "-m", kts.MODEL, "--port", "0", "--profile", path], capture_output=True, text=True, timeout=120)
        assert p.returncode == 65 and word in p.stderr, (name, p.returncode, p.stderr)
    p = subprocess.run([kts.KTSERVE, "-m", kts.MODEL, "--port", "0", "--profile", os.path.join(DIR, "none.json")], capture_output=True, text=True, timeout=120)
    assert p.returncode == 66 and "none.json" in p.stderr, p


kts.need_program()
kts.run([match, other_host, none_is_said_once, unusable])
