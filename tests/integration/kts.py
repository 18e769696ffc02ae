"""kts.py - what the integration tests share: start a ktserve on a free loopback port, talk HTTP with the standard library, end it and look at its exit.

KTSERVE names the program (default $KT_BUILDDIR/ktserve), so that sanitizer builds run the same scripts. KT_TEST_SECONDS scales the timed parts. Every wait has
a bound. Exit codes: 0 pass, 1 fail, 77 skip.
"""
import ctypes
import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
import time

SRC = os.environ.get("KT_SRCDIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("KT_BUILDDIR", os.path.join(SRC, "build"))
KTSERVE = os.environ.get("KTSERVE", os.path.join(BUILD, "ktserve"))
KTTUNE = os.environ.get("KTTUNE", os.path.join(BUILD, "kttune"))
MODEL = os.path.join(SRC, "models", "demo")


def skip(why):
    print("SKIP:", why)
    sys.exit(77)


def need_program():
    if not os.access(KTSERVE, os.X_OK):
        skip(f"{KTSERVE} is not built")


def leak_check_env():
    """hwloc's PCI plugin reads the table of PCI names through libpciaccess and unloads that library at its end: the table, which is never freed, then looks like
    a leak of ours. With the library held in memory it stays reachable. Only for builds with the address sanitizer."""
    with open(KTSERVE, "rb") as f:
        if b"libasan.so" not in f.read():
            return {}
    try:
        ctypes.CDLL("libpciaccess.so.0")
    except OSError:
        return {}
    options = os.environ.get("ASAN_OPTIONS", "")
    return {"LD_PRELOAD": "libpciaccess.so.0", "ASAN_OPTIONS": (options + ":" if options else "") + "verify_asan_link_order=0"}


class Server:
    """One ktserve. Use as a context; stop() sends SIGTERM and gives the exit code."""

    def __init__(self, *args, model=MODEL, env=None, wait=True, timeout=120):
        need_program()
        self.log = open(f"/tmp/kts-{os.getpid()}-{id(self)}.log", "w+b")
        cmd = [KTSERVE, "-m", model, "--port", "0", *args]
        self.p = subprocess.Popen(cmd, stdout=subprocess.PIPE, stderr=self.log, env={**os.environ, **leak_check_env(), **(env or {})})
        self.port = None
        end = time.monotonic() + timeout
        line = b""
        while not line.endswith(b"\n") and time.monotonic() < end and self.p.poll() is None:
            if select.select([self.p.stdout], [], [], 0.2)[0]:
                c = os.read(self.p.stdout.fileno(), 256)
                if not c:
                    break
                line += c
        m = re.search(rb"listening on http://127\.0\.0\.1:(\d+)", line)
        if not m:
            self.p.wait(timeout=20)
            raise RuntimeError(f"no address: {line!r}, exit {self.p.returncode}\n{self.errors()}")
        self.port = int(m.group(1))
        while wait and self.get("/health")[0] != 200:
            if self.p.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"not ready, exit {self.p.poll()}\n{self.errors()}")
            time.sleep(0.05)

    def errors(self):
        self.log.flush()
        with open(self.log.name, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def connect(self, timeout=300):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, timeout=300):
        c = self.connect(timeout)
        h = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if body is not None:
            h.setdefault("Content-Type", "application/json")
        c.request(method, path, body, h)
        r = c.getresponse()
        data = r.read()
        out = (r.status, dict((k.lower(), v) for k, v in r.getheaders()), data)
        c.close()
        return out

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def post(self, path, body, headers=None, timeout=300):
        """Status and decoded JSON."""
        status, _, data = self.request("POST", path, body, headers, timeout)
        return status, json.loads(data)

    def stream(self, path, body, timeout=300):
        """Iterate over the data payloads of an SSE reply, as text."""
        c = self.connect(timeout)
        c.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            raise RuntimeError(f"{r.status}: {r.read()!r}")
        assert r.getheader("Content-Type").startswith("text/event-stream"), r.getheader("Content-Type")
        for frame in frames(r):
            yield frame
        c.close()

    def metrics(self):
        """{name{labels}: value} of one scrape."""
        text = self.get("/metrics")[2].decode()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and not line.startswith("#")}

    def stop(self, sig=signal.SIGTERM, timeout=120):
        if self.p.poll() is None:
            self.p.send_signal(sig)
        try:
            self.p.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()
            raise RuntimeError("ktserve did not end\n" + self.errors()) from None
        return self.p.returncode

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if self.p.poll() is None and kind is None:
                code = self.stop()
                assert code == 0, f"exit code {code}\n{self.errors()}"
        finally:
            if self.p.poll() is None:
                self.p.kill()
                self.p.wait()
            errors = self.errors()
            if kind is not None:
                print(errors[-4000:], file=sys.stderr)
            self.p.stdout.close()
            self.log.close()
            os.unlink(self.log.name)
        bad = [w for w in ("ERROR: AddressSanitizer", "ThreadSanitizer", "runtime error:", "LeakSanitizer") if w in errors]
        if bad and kind is None:
            print(errors[-8000:], file=sys.stderr)
            raise AssertionError(f"{bad} in the log")


def frames(r):
    """Payloads of an SSE body; checks the framing."""
    buf = b""
    while True:
        chunk = r.read1(65536)
        buf += chunk
        while b"\n\n" in buf:
            frame, buf = buf.split(b"\n\n", 1)
            if frame.startswith(b":"):
                continue
            assert frame.startswith(b"data: ") and b"\n" not in frame, frame
            yield frame[6:].decode("utf-8")
        if not chunk:
            assert buf == b"", buf
            return


def chat(text, **kw):
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "temperature": 0, **kw}


def run(tests):
    """Run the test functions in order, print a line for each, exit."""
    only = sys.argv[1:]
    failed = 0
    for t in tests:
        if only and t.__name__ not in only:
            continue
        start = time.monotonic()
        try:
            t()
            print(f"ok   {t.__name__} {time.monotonic() - start:.1f} s", flush=True)
        except Exception as e:  # one failing test must not hide the others
            import traceback

            traceback.print_exc()
            print(f"FAIL {t.__name__}: {e}", flush=True)
            failed += 1
    sys.exit(1 if failed else 0)
