"""kts.py - what the integration tests share: start a ktserve on a free loopback port, talk to it with the standard library, stop it.

Paths come from the environment (KTSERVE, KTTUNE, KT_SRCDIR, KT_BUILDDIR, KT_FIXTURES), so that sanitizer builds run the same scripts.
Every wait has an end; all traffic stays on 127.0.0.1.
"""
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

SRC = os.environ.get("KT_SRCDIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("KT_BUILDDIR", os.path.join(SRC, "build"))
KTSERVE = os.environ.get("KTSERVE", os.path.join(BUILD, "ktserve"))
KTTUNE = os.environ.get("KTTUNE", os.path.join(BUILD, "kttune"))
FIXTURES = os.environ.get("KT_FIXTURES", os.path.join(SRC, "..", "shared", "fixtures"))
DEMO = os.path.join(SRC, "models", "demo")
CI = os.environ.get("CI") == "true"


def skip(why):
    """Leave with 77, or with 1 where CI has everything that is needed."""
    print("skipped:", why)
    sys.exit(77)


def need(module):
    """Import a package from PyPI; without it skip, in CI fail."""
    try:
        return __import__(module)
    except ImportError:
        print(f"skipped: no Python package '{module}' (./quickstart check installs it in build/venv)")
        sys.exit(1 if CI and os.environ.get("KT_VENV") else 77)


class Server:
    """with Server("-m", MODEL, ..) as s: s.port, s.post(path, body), s.get(path)"""

    def __init__(self, *args, model=DEMO, env=None, wait=120):
        self.args = [KTSERVE, "-m", model, "--port", "0", *args]
        self.env = dict(os.environ, **(env or {}))
        self.wait = wait
        self.port = None
        self.log = tempfile.TemporaryFile("w+")

    def __enter__(self):
        self.p = subprocess.Popen(self.args, stdout=self.log, stderr=subprocess.STDOUT, env=self.env)
        end = time.monotonic() + self.wait
        while time.monotonic() < end:
            if self.p.poll() is not None:
                raise AssertionError(f"ktserve ended with {self.p.returncode}:\n{self.output()}")
            if self.port is None:
                for line in self.output().splitlines():
                    if "listening on http://" in line:
                        self.port = int(line.rsplit(":", 1)[1])
            if self.port is not None and self.ready():
                return self
            time.sleep(0.05)
        self.p.kill()
        raise AssertionError(f"ktserve was not ready after {self.wait} s:\n{self.output()}")

    def __exit__(self, *exc):
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.p.wait(60)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        if exc[0] is not None or self.p.returncode != 0:
            print(self.output()[-4000:])
        self.code = self.p.returncode
        if exc[0] is None:
            assert self.code == 0, f"ktserve ended with {self.code} after SIGTERM"
        return False

    def output(self):
        """All that the server printed so far."""
        with open(f"/proc/self/fd/{self.log.fileno()}") as f:
            return f.read()

    def ready(self):
        try:
            return self.get("/ready")[0] == 200
        except OSError:
            return False

    def request(self, method, path, body=None, headers=None, timeout=120):
        """(status, headers, bytes)"""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
            h = {"Content-Type": "application/json"} if data is not None else {}
            h.update(headers or {})
            c.request(method, path, data, h)
            r = c.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
        finally:
            c.close()

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, body, **kw):
        """Parsed JSON of a 200 reply."""
        status, _, data = self.request("POST", path, body, **kw)
        assert status == 200, (status, data)
        return json.loads(data)

    def chat(self, text, **kw):
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "temperature": 0, **kw})

    def stream(self, path, body, timeout=120):
        """Yield the JSON objects of an SSE reply; checks that [DONE] ends it."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
            r = c.getresponse()
            assert r.status == 200, (r.status, r.read())
            assert r.getheader("content-type").startswith("text/event-stream")
            done = False
            for line in r:
                line = line.decode().rstrip("\n")
                if line.startswith("data: "):
                    assert not done, "an event after [DONE]"
                    if line == "data: [DONE]":
                        done = True
                    else:
                        yield json.loads(line[6:])
                else:
                    assert line == "" or line.startswith(":"), line
            assert done, "the stream ended without [DONE]"
        finally:
            c.close()
