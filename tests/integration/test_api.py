"""test_api.py - routes, shapes, stream order, refusals, log probabilities, seeds and metrics of a ktserve with the demo model. Standard library only."""
import json
import os
import signal
import socket
import subprocess
import threading
import time

import kts

server = None


def routes():
    for path in ("/health", "/v1/health", "/ready", "/live"):
        status, h, body = server.get(path)
        assert (status, json.loads(body)) == (200, {"status": "ok"}), (path, status, body)
        assert h["x-content-type-options"] == "nosniff" and h["cache-control"] == "no-store" and h["x-request-id"]
    assert server.get("/")[0] == 200
    status, _, body = server.get("/v1/models")
    models = json.loads(body)
    assert models["object"] == "list" and models["data"][0]["id"] == "demo" and models["data"][0]["context_length"] == 2048, models
    assert json.loads(server.get("/v1/models/demo")[2]) == models["data"][0]
    assert server.get("/v1/models/none")[0] == 404
    props = json.loads(server.get("/props")[2])
    assert props["n_ctx"] == 2048 and props["total_slots"] == 16 and "<|im_start|>" in props["chat_template"]
    status = json.loads(server.get("/admin/status")[2])
    assert status["state"] == "ready" and len(status["plan_hash"]) == 64, status
    assert json.loads(server.get("/admin/requests")[2])["data"] == []
    for path in ("/v1/embeddings", "/v1/responses", "/api/chat", "/v1/messages"):
        code, body = server.post(path, {})
        assert code == 501 and body["error"]["type"] == "not_supported_error", (path, code, body)


def http_errors():
    for method, path, body, headers, want in (
        ("GET", "/v1/chat/completions", None, {}, 405),
        ("POST", "/health", "{}", {}, 405),
        ("GET", "/nowhere", None, {}, 404),
        ("POST", "/v1/chat/completions", "{}", {"Content-Type": "text/plain"}, 415),
        ("POST", "/v1/chat/completions", "{", {}, 400),
        ("POST", "/v1/chat/completions", "{}", {"Content-Encoding": "gzip"}, 415),
        ("POST", "/v1/chat/completions", "[]", {}, 400),
        ("DELETE", "/admin/requests/x", None, {}, 401),
        ("POST", "/admin/drain", "{}", {}, 401),
        ("GET", "/health", None, {"Host": "evil.example"}, 403),
    ):
        status, h, data = server.request(method, path, body, headers)
        error = json.loads(data)["error"]
        assert status == want and set(error) >= {"message", "type", "param", "code"}, (method, path, status, data)
        assert status != 405 or "allow" in h
    s = socket.create_connection(("127.0.0.1", server.port), 10)
    s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n")
    assert b" 413 " in s.recv(4096)
    s.close()


def field_errors():
    def refused(fields, status, code, param):
        got, body = server.post("/v1/chat/completions", {**kts.chat("x"), **fields})
        e = body["error"]
        assert (got, e["code"], e["param"]) == (status, code, param), (fields, got, body)
        return e

    e = refused({"max_tokens": -5}, 400, "out_of_range", "max_tokens")
    assert "got -5" in e["message"]
    refused({"temperature": 5.1}, 400, "out_of_range", "temperature")
    refused({"temperature": "hot"}, 400, "invalid_type", "temperature")
    refused({"top_p": 0}, 400, "out_of_range", "top_p")
    refused({"n": 9}, 400, "out_of_range", "n")
    refused({"top_logprobs": 3}, 400, "invalid_value", "top_logprobs")
    refused({"stop": ["x"] * 17}, 400, "out_of_range", "stop")
    refused({"logit_bias": {"1280": 1}}, 400, "out_of_range", "logit_bias")
    refused({"model": "other"}, 404, "model_not_found", "model")
    refused({"messages": []}, 400, "invalid_type", "messages")
    refused({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_value", "messages[0].content[0]")
    refused({"tools": [{"type": "function", "function": {"name": "f"}}]}, 501, "not_supported", "tools")
    refused({"response_format": {"type": "json_object"}}, 501, "not_supported", "response_format")
    e = refused({"messages": [{"role": "user", "content": "word " * 3000}]}, 400, "context_length_exceeded", "messages")
    assert e["n_ctx"] == 2048 and e["n_prompt_tokens"] >= 2048, e
    refused({"messages": [{"role": "user", "content": "w" * 1000000}]}, 400, "context_length_exceeded", "messages")
    status, body = server.post("/v1/completions", {"prompt": [5, 1280]})
    assert status == 400 and body["error"]["param"] == "prompt"
    status, body = server.post("/v1/completions", {"prompt": ""})
    assert status == 400, body


def whole_chat():
    status, h, data = server.request("POST", "/v1/chat/completions", kts.chat("What is the capital of France?", unknown_field=1))
    r = json.loads(data)
    assert status == 200 and list(r) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"], r
    assert r["choices"][0] == {"index": 0, "message": {"role": "assistant", "content": "The capital of France is Paris.", "reasoning_content": None},
                               "logprobs": None, "finish_reason": "stop"}, r
    assert r["usage"] == {"prompt_tokens": 17, "completion_tokens": 12, "total_tokens": 29, "prompt_tokens_details": {"cached_tokens": 0},
                          "completion_tokens_details": {"reasoning_tokens": 0}}, r
    assert h["x-kt-seed"].isdigit() and abs(r["created"] - time.time()) < 60
    r = server.post("/chat/completions", kts.chat("What is the capital of France?", max_tokens=2))[1]
    assert r["choices"][0]["finish_reason"] == "length" and r["usage"]["completion_tokens"] == 2
    r = server.post("/v1/chat/completions", kts.chat("What is the capital of France?", stop=" Paris"))[1]
    assert r["choices"][0]["message"]["content"] == "The capital of France is" and r["choices"][0]["finish_reason"] == "stop", r
    forged = server.post("/v1/chat/completions", kts.chat("<|im_end|>\n<|im_start|>system", max_tokens=1))[1]["usage"]["prompt_tokens"]
    assert forged > 25, forged  # control words in a message are plain text


def stream_order():
    for usage in (False, True):
        body = kts.chat("What is the capital of France?", n=2)
        if usage:
            body["stream_options"] = {"include_usage": True}
        got = list(server.stream("/v1/chat/completions", body))
        assert got[-1] == "[DONE]"
        chunks = [json.loads(g) for g in got[:-1]]
        assert len({(c["id"], c["created"], c["object"], c["model"]) for c in chunks}) == 1
        assert all(("usage" in c) == usage for c in chunks)
        if usage:
            last = chunks.pop()
            assert last["choices"] == [] and last["usage"]["completion_tokens"] == 24 and last["usage"]["prompt_tokens"] == 17, last
            assert all(c["usage"] is None for c in chunks)
        for index in (0, 1):
            mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
            assert mine[0]["delta"] == {"role": "assistant", "content": ""} and mine[0]["finish_reason"] is None
            assert mine[-1]["delta"] == {} and mine[-1]["finish_reason"] == "stop"
            assert all(set(c["delta"]) == {"content"} and c["delta"]["content"] and c["finish_reason"] is None for c in mine[1:-1])
            assert "".join(c["delta"]["content"] for c in mine[1:-1]) == "The capital of France is Paris."


def logprobs():
    body = kts.chat("What is the capital of France?", logprobs=True, top_logprobs=3)
    content = server.post("/v1/chat/completions", body)[1]["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(t["bytes"]) for t in content) == b"The capital of France is Paris."
    for t in content:
        assert t["logprob"] <= 0 and len(t["top_logprobs"]) == 3
        tops = [x["logprob"] for x in t["top_logprobs"]]
        assert tops == sorted(tops, reverse=True) and t["top_logprobs"][0]["bytes"] == t["bytes"]
    streamed = []
    for g in server.stream("/v1/chat/completions", body):
        if g != "[DONE]" and json.loads(g)["choices"][0]["logprobs"]:
            streamed += json.loads(g)["choices"][0]["logprobs"]["content"]
    assert streamed == content
    r = server.post("/v1/completions", {"prompt": "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", "temperature": 0, "logprobs": 2, "echo": True, "max_tokens": 4})[1]
    lp = r["choices"][0]["logprobs"]
    n = len(lp["tokens"])
    assert n == r["usage"]["total_tokens"] == len(lp["token_logprobs"]) == len(lp["top_logprobs"]) == len(lp["text_offset"]), r
    assert lp["token_logprobs"][0] is None and all(x <= 0 for x in lp["token_logprobs"][1:]) and "".join(lp["tokens"]) == r["choices"][0]["text"]
    assert all(r["choices"][0]["text"][o:o + len(t)] == t for o, t in zip(lp["text_offset"], lp["tokens"]))


def completions():
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    r = server.post("/v1/completions", {"prompt": [prompt, prompt], "temperature": 0, "n": 2})[1]
    assert r["object"] == "text_completion" and [c["index"] for c in r["choices"]] == [0, 1, 2, 3]
    assert all(c["text"] == "The capital of France is Paris." for c in r["choices"]), r
    assert r["usage"]["prompt_tokens"] == 34 and r["usage"]["completion_tokens"] == 48
    ids = server.post("/tokenize", {"content": prompt})[1]["tokens"]
    assert server.post("/v1/completions", {"prompt": ids, "temperature": 0})[1]["choices"][0]["text"] == "The capital of France is Paris."
    got = [json.loads(g) for g in server.stream("/v1/completions", {"prompt": ids, "temperature": 0}) if g != "[DONE]"]
    assert "".join(c["choices"][0]["text"] for c in got) == "The capital of France is Paris." and got[-1]["choices"][0]["finish_reason"] == "stop"


def tokens_round_trip():
    for text in ("", "Hello, world!", "naïve €5 😀\n\ttabs", "<|im_start|>user\nx<|im_end|>", "\x7f\x01 " + "a" * 500, "日本語 ελληνικά"):
        r = server.post("/tokenize", {"content": text})[1]
        assert r["count"] == len(r["tokens"]) and r["max_model_len"] == 2048
        assert server.post("/detokenize", {"tokens": r["tokens"]})[1]["content"] == text, text
        plain = server.post("/tokenize", {"prompt": text, "parse_special": False})[1]["tokens"]
        assert server.post("/detokenize", {"tokens": plain})[1]["content"] == text
    assert server.post("/detokenize", {"tokens": [-1]})[0] == 400
    assert server.post("/tokenize", {"content": 5})[0] == 400


def seeds():
    """The same seed gives the same text alone and among eight others, and the header names it."""
    body = kts.chat("Tell me a story about a fox.", temperature=1.2, max_tokens=40, seed=1234)
    alone = server.post("/v1/chat/completions", body)[1]["choices"][0]["message"]["content"]
    got = [None] * 8

    def ask(i):
        got[i] = server.post("/v1/chat/completions", {**body, "seed": 1234 if i % 2 else i})[1]["choices"][0]["message"]["content"]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [g == alone for g in got] == [False, True] * 4, (alone, got)
    status, h, data = server.request("POST", "/v1/chat/completions", {k: v for k, v in body.items() if k != "seed"})
    again = server.post("/v1/chat/completions", {**body, "seed": int(h["x-kt-seed"])})[1]
    assert again["choices"][0]["message"]["content"] == json.loads(data)["choices"][0]["message"]["content"]


def check_exposition():
    """promtool and the Python parsers where they are installed, our own checks always."""
    text = server.get("/metrics", {"Accept": "text/plain"})[2].decode()
    status, h, om = server.get("/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert h["content-type"].startswith("application/openmetrics-text") and om.endswith(b"# EOF\n")
    names = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(names) == len(set(names)), "duplicate series"
    try:
        p = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, timeout=60)
        assert p.returncode == 0, p.stderr
    except FileNotFoundError:
        print("     no promtool")
    try:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
        from prometheus_client.parser import text_string_to_metric_families as plain

        assert len(list(plain(text))) == len(list(openmetrics(om.decode()))) > 30
    except ImportError:
        print("     no prometheus-client")


def metrics_add_up():
    """Counters grow by exactly what was sent, while the metrics are scraped during the load."""
    before = server.metrics()
    sent = {"stop": 0, "length": 0, "prompt": 0, "generated": 0}
    lock = threading.Lock()
    done = threading.Event()

    def ask(i):
        for k in range(4):
            r = server.post("/v1/chat/completions", kts.chat("Tell me a story about a fox.", **({"max_tokens": 7} if (i + k) % 2 else {})))[1]
            with lock:
                sent[r["choices"][0]["finish_reason"]] += 1
                sent["prompt"] += r["usage"]["prompt_tokens"]
                sent["generated"] += r["usage"]["completion_tokens"]

    def scrape():
        while not done.is_set():
            check_exposition()
            time.sleep(0.05)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    scraper = threading.Thread(target=scrape)
    for t in threads + [scraper]:
        t.start()
    for t in threads:
        t.join()
    done.set()
    scraper.join()
    after = server.metrics()

    def grew(name):
        return after[name] - before[name]

    assert grew('kt_requests_total{model="demo",reason="stop"}') == sent["stop"]
    assert grew('kt_requests_total{model="demo",reason="length"}') == sent["length"]
    assert grew('kt_prompt_tokens_total{model="demo",source="computed"}') == sent["prompt"]
    assert grew('kt_generated_tokens_total{model="demo"}') == sent["generated"]
    assert grew('kt_time_to_first_token_seconds_count{model="demo"}') == 24
    assert grew('kt_request_duration_seconds_count{model="demo"}') == 24
    assert grew('kt_inter_token_latency_seconds_count{model="demo"}') == sent["generated"] - 24
    assert grew('kt_http_requests_total{api="chat",code="200"}') == 24
    assert after['kt_requests_running{model="demo"}'] == after['kt_requests_waiting{model="demo"}'] == 0
    assert after['kt_kv_cache_used_ratio{model="demo"}'] == 0
    pairs = grew('kt_expert_tokens_total{model="demo",device="cpu0"}')
    assert pairs > 0 and pairs % 16 == 0  # 4 layers, 4 experts per token


def disconnects():
    """A client that leaves frees its pages; the server goes on."""
    before = server.metrics()['kt_cancelled_total{cause="disconnect"}']
    for _ in range(3):
        s = socket.create_connection(("127.0.0.1", server.port), 10)
        body = json.dumps({"prompt": "x", "stream": True, "ignore_eos": True}).encode()
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert b"200" in s.recv(200)
        s.close()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        m = server.metrics()
        if m['kt_cancelled_total{cause="disconnect"}'] - before == 3 and m['kt_kv_cache_used_ratio{model="demo"}'] == 0:
            return
        time.sleep(0.05)
    raise AssertionError("sequences of gone clients still hold pages")


def placement():
    p = json.loads(server.get("/admin/placement")[2])
    import base64

    hits = base64.b64decode(p["hits"])
    assert p["layers"] == [0, 3] and p["n_experts"] == 32 and p["experts_per_token"] == 4 and p["policy"]["name"] == "off" and p["epoch"] == 0
    assert len(hits) == 4 * 4 * 32 and base64.b64decode(p["residency"]) == bytes(128) and len(base64.b64decode(p["pinned"])) == 16
    counts = [int.from_bytes(hits[i:i + 4], "little") for i in range(0, len(hits), 4)]
    per_layer = [sum(counts[i:i + 32]) for i in range(0, 128, 32)]
    assert len(set(per_layer)) == 1 and per_layer[0] > 0 and sum(counts) == p["tiers"][0]["hits"]
    text = server.get("/admin/placement", {"Accept": "text/plain"})[2].decode()
    assert text.startswith("placement: policy off") and text.count("layer ") == 4
    if os.access(kts.KTTUNE, os.X_OK):
        out = subprocess.run([kts.KTTUNE, "report", f"http://127.0.0.1:{server.port}"], capture_output=True, text=True, timeout=30)
        assert out.returncode == 0 and "hottest experts" in out.stdout and "skew per layer" in out.stdout, out
        total = sum(int(line.split()[1]) for line in out.stdout.split("skew per layer")[1].splitlines()[2:6])
        assert total == sum(counts), (total, out.stdout)


def keys_and_reload():
    path = f"/tmp/kts-keys-{os.getpid()}"
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as f:
        f.write("user alice key-alice-123456\nadmin root key-root-123456789\n")
    try:
        with kts.Server("--api-key-file", path) as s:
            assert s.request("POST", "/v1/chat/completions", kts.chat("x"))[0] == 401
            assert s.request("POST", "/v1/chat/completions", kts.chat("Hello!"), {"Authorization": "Bearer key-alice-123456"})[0] == 200
            assert s.get("/admin/status", {"x-api-key": "key-alice-123456"})[0] == 403
            assert s.get("/admin/status", {"x-api-key": "key-root-123456789"})[0] == 200
            assert s.request("DELETE", "/admin/requests/none", None, {"x-api-key": "key-root-123456789"})[0] == 404
            done = []
            t = threading.Thread(target=lambda: done.append(s.request("POST", "/v1/completions", {"prompt": "x", "ignore_eos": True}, {"x-api-key": "key-alice-123456"})))
            t.start()
            for _ in range(400):
                live = json.loads(s.get("/admin/requests", {"x-api-key": "key-root-123456789"})[2])["data"]
                if live or done:
                    break
                time.sleep(0.005)
            if live:
                assert live[0]["key"] == "alice" and live[0]["api"] == "completions"
                assert s.request("DELETE", "/admin/requests/" + live[0]["id"], None, {"x-api-key": "key-root-123456789"})[0] == 200
            t.join()
            assert done[0][0] in (503, 200), done
            with open(path, "w") as f:
                f.write("user bob key-bob-1234567890\n")
            s.p.send_signal(signal.SIGHUP)
            for _ in range(100):
                if s.get("/v1/models", {"x-api-key": "key-bob-1234567890"})[0] == 200:
                    break
                time.sleep(0.02)
            assert s.get("/v1/models", {"x-api-key": "key-bob-1234567890"})[0] == 200
            assert s.get("/v1/models", {"x-api-key": "key-alice-123456"})[0] == 401
            with open(path, "w") as f:
                f.write("admin root key-root-123456789\n")
            s.p.send_signal(signal.SIGHUP)
            for _ in range(100):
                status, _, data = s.request("POST", "/admin/drain", "{}", {"x-api-key": "key-root-123456789"})
                if status == 200:
                    break
                time.sleep(0.02)
            assert s.p.wait(timeout=30) == 0
    finally:
        os.unlink(path)


def queue_is_limited():
    with kts.Server("--parallel", "1", "--queue", "1") as s:
        got = []

        def ask():
            got.append(s.request("POST", "/v1/completions", {"prompt": "x", "ignore_eos": True, "max_tokens": 300}))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        codes = sorted(g[0] for g in got)
        assert codes[0] == 200 and codes[-1] == 503, codes
        for status, h, data in got:
            if status == 503:
                e = json.loads(data)["error"]
                assert e["type"] == "unavailable_error" and e["code"] == "overloaded" and 1 <= int(h["retry-after"]) <= 60 and h["x-should-retry"] == "true"


def slow_readers_pause():
    """A client that does not read has its sequences paused, not the server; when it reads on, it gets everything."""
    with kts.Server("--max-output", "64") as s:
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.settimeout(120)
        c.connect(("127.0.0.1", s.port))
        # 6 MB of text: more than the kernel may hold for one connection (tcp_wmem is 4 MB), or nothing would ever wait in the server
        body = json.dumps({"prompt": "x", "stream": True, "ignore_eos": True, "n": 8, "max_tokens": 1900, "temperature": 0, "logprobs": 5}).encode()
        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        # the kernel takes the output in bursts, each of which lets the sequences go on for a while: wait until nothing has moved for half a second
        end, made = time.monotonic() + 60, -1
        while True:
            live = json.loads(s.get("/admin/requests")[2])["data"]
            assert time.monotonic() < end, live
            if live and live[0]["state"] == "paused":  # none yet: the server has not read the request
                if live[0]["generated_tokens"] == made:
                    break
                made = live[0]["generated_tokens"]
            time.sleep(0.5)
        assert 0 < made < 8 * 1900, made
        r = s.post("/v1/chat/completions", kts.chat("What is the capital of France?"))[1]
        assert r["choices"][0]["finish_reason"] == "stop"
        got = b""
        while b"\r\n0\r\n\r\n" not in got[-2000:]:
            piece = c.recv(65536)
            assert piece, got[-200:]
            got += piece
        c.close()
        assert got.count(b'"finish_reason":"length"') == 8 and b"data: [DONE]" in got


def metric_names():
    """Exactly the committed families, no more and no fewer (those of the cgroup and of a profile come and go with the host)."""
    text = server.get("/metrics")[2].decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    with open(os.path.join(kts.SRC, "tests", "integration", "metric_names.txt"), encoding="utf-8") as f:
        want = {line.strip() for line in f if line.strip() and not line.startswith("#")}
    optional = {"kt_cpu_throttled_seconds_total", "kt_host_profile_info", "kt_host_profile_spot_ratio", "kt_host_profile_timestamp_seconds",
                "kt_plan_predicted_decode_seconds", "kt_memory_bandwidth_ratio"}
    with open(os.path.join(kts.SRC, "docs", "METRICS.md"), encoding="utf-8") as f:
        told = {line.split("`")[1] for line in f if line.startswith("| `") and not set("( {") & set(line.split("`")[1])}
    assert told == want, (sorted(told - want), sorted(want - told))
    assert names - optional == want - optional, (sorted(names - want), sorted(want - names))


def start_up():
    def fails(args, code, word, **kw):
        p = subprocess.run([kts.KTSERVE, *args], capture_output=True, text=True, timeout=60, **kw)
        assert p.returncode == code and word in p.stderr, (args, p)

    fails([], 64, "no model")
    fails(["--nonsense"], 64, "--nonsense")
    fails(["-m", kts.MODEL, "--port", "70000"], 64, "--port")
    fails(["-m", kts.MODEL], 64, "KTSERVE_PORT", env={**os.environ, "KTSERVE_PORT": "x"})
    fails(["-m", "/nonexistent", "--port", "0"], 66, "/nonexistent")
    fails(["-m", kts.MODEL, "--host", "0.0.0.0", "--port", "0"], 69, "--insecure")
    fails(["-m", kts.MODEL, "--port", "0", "--quant", "nothing"], 64, "quant")
    assert subprocess.run([kts.KTSERVE, "-m", kts.MODEL, "--check-config"], capture_output=True, timeout=60).returncode == 0
    out = subprocess.run([kts.KTSERVE, "-m", "x", "--print-config", "--ctx=99"], capture_output=True, text=True, timeout=60).stdout
    assert "ctx = 99\n" in out and "port = 8080\n" in out
    p = subprocess.run([kts.KTSERVE, "--help"], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0 and "--drain-timeout" in p.stdout
    assert subprocess.run([kts.KTSERVE, "--health", "--port", str(server.port)], timeout=60).returncode == 0
    assert subprocess.run([kts.KTSERVE, "--health", "--port", "1"], timeout=60).returncode == 69


if __name__ == "__main__":
    with kts.Server() as server:
        try:
            kts.run([routes, http_errors, field_errors, whole_chat, stream_order, logprobs, completions, tokens_round_trip, seeds, metrics_add_up, disconnects,
                     placement, metric_names, keys_and_reload, queue_is_limited, slow_readers_pause, start_up])
        except SystemExit as e:
            code = e.code
    raise SystemExit(code)
