"""test_streams.py - many streams at once, with slow readers and clients that leave; then SIGTERM.

KT_STREAMS (64) clients work for KT_TEST_SECONDS (5). Each stream that was read to its end must have ended with a right finish_reason, its text must agree with
what it asked for, and the counters must add up to the requests sent. Exit code 0 after SIGTERM. Standard library only; run it on sanitizer builds too.
"""
import json
import os
import random
import socket
import threading
import time

import kts

STREAMS = int(os.environ.get("KT_STREAMS", "64"))
SECONDS = float(os.environ.get("KT_TEST_SECONDS", "5"))

lock = threading.Lock()
totals = {"stop": 0, "length": 0, "left": 0, "slow": 0, "queue_full": 0, "bytes": 0}
problems = []


def count(key, n=1):
    with lock:
        totals[key] += n


def read_whole(server, rng):
    limit = rng.choice((1, 2, 8, 30, 200))
    body = kts.chat(rng.choice(("Tell me a story about a fox.", "What is the capital of France?", "Write a C function max for int.")), max_tokens=limit,
                    seed=rng.randrange(1 << 30), temperature=rng.choice((0, 1)), n=rng.choice((1, 1, 1, 2)))
    finish, text, done = {}, "", False
    for g in server.stream("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}):
        if g == "[DONE]":
            done = True
            continue
        assert not done, "something after [DONE]"
        c = json.loads(g)
        assert "error" not in c, c
        for x in c["choices"]:
            text += x["delta"].get("content", "")
            if x["finish_reason"]:
                assert x["index"] not in finish
                finish[x["index"]] = x["finish_reason"]
        if c["usage"]:
            made = c["usage"]["completion_tokens"]
    assert done and sorted(finish) == list(range(body["n"])), finish
    assert made <= limit * body["n"] and all(f in ("stop", "length") for f in finish.values())
    assert "length" not in finish.values() or made >= limit
    count("length" if "length" in finish.values() else "stop")
    count("bytes", len(text))


def raw(server, body):
    s = socket.create_connection(("127.0.0.1", server.port), 60)
    data = json.dumps(body).encode()
    s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return s


def leave_early(server, rng):
    """Disconnect in the queue, during the prompt, or after some tokens."""
    s = raw(server, kts.chat("Tell me a story about a fox. " * rng.choice((1, 40)), stream=True, ignore_eos=True))
    what = rng.randrange(3)
    if what == 1:
        time.sleep(rng.random() * 0.05)
    elif what == 2:
        s.recv(rng.randrange(1, 4000))
    s.close()
    count("left")


def read_slowly(server, rng):
    s = raw(server, kts.chat("Tell me a story about a fox.", stream=True, max_tokens=50))
    got = b""
    while b"\r\n0\r\n\r\n" not in got:
        piece = s.recv(97)
        assert piece, "closed before the end"
        got += piece
        time.sleep(0.002)
    s.close()
    assert b"data: [DONE]" in got and (b'"finish_reason":"stop"' in got or b'"finish_reason":"length"' in got)
    with lock:
        totals["slow"] += 1
        totals["length" if b'"finish_reason":"length"' in got else "stop"] += 1


def client(server, number, until):
    rng = random.Random(number)
    while time.monotonic() < until and not problems:
        kind = rng.random()
        try:
            (read_whole if kind < 0.75 else leave_early if kind < 0.9 else read_slowly)(server, rng)
        except Exception as e:
            if "503" in str(e):
                count("queue_full")
                continue
            problems.append(e)
            raise


def streams():
    with kts.Server("--queue", "1000") as s:
        until = time.monotonic() + SECONDS
        threads = [threading.Thread(target=client, args=(s, i, until)) for i in range(STREAMS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(timeout=SECONDS + 500)
            assert not t.is_alive(), "a client hangs"
        assert not problems, problems
        end = time.monotonic() + 60
        while time.monotonic() < end:
            m = s.metrics()
            if m['kt_requests_running{model="demo"}'] == 0 and m['kt_requests_waiting{model="demo"}'] == 0 and m['kt_kv_cache_used_ratio{model="demo"}'] == 0:
                break
            time.sleep(0.1)
        reason = {r: m[f'kt_requests_total{{model="demo",reason="{r}"}}'] for r in ("stop", "length", "abort", "error")}
        print(f"     {totals} {reason}")
        assert m['kt_kv_cache_used_ratio{model="demo"}'] == 0 and reason["error"] == 0
        # a client that left may have been served in full before the server saw it
        left = reason["stop"] + reason["length"] - totals["stop"] - totals["length"] + reason["abort"]
        assert reason["stop"] >= totals["stop"] and reason["length"] >= totals["length"] and left <= totals["left"], (reason, totals)
        assert totals["stop"] + totals["length"] > 0
        assert json.loads(s.get("/admin/requests")[2])["data"] == []


if __name__ == "__main__":
    kts.run([streams])
