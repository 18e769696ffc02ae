"""test_term.py - SIGTERM in the middle of many streams: all finish or get a proper error event, new requests are refused, the exit code is 0.

Three runs: enough drain time for everything, too little (the streams end with an error event), and a second signal (exit 130 at once). Also a SIGTERM
while the queue is full of waiting requests, and one before the model is loaded.
"""
import json
import signal
import threading
import time

import kts

N = 32


def watch(server, body, out):
    finish, error, done = None, None, False
    try:
        for g in server.stream("/v1/chat/completions", body):
            out["started"].set()
            if g == "[DONE]":
                done = True
                continue
            c = json.loads(g)
            if "error" in c:
                error = c["error"]
            else:
                finish = c["choices"][0]["finish_reason"] or finish
        out["end"] = ("finished" if done and finish else "error" if error and not done else "cut", finish, error)
    except RuntimeError as e:  # refused with a status
        out["end"] = ("refused" if str(e).startswith("503") else "bad", str(e), None)
    except Exception as e:
        out["end"] = ("bad", repr(e), None)
    out["started"].set()


def kill_in_the_middle(args, body, second=False):
    with kts.Server(*args) as s:
        started = threading.Event()  # any of them: which request comes first is not known
        outs = [{"started": started} for _ in range(N)]
        threads = [threading.Thread(target=watch, args=(s, body, o)) for o in outs]
        for t in threads:
            t.start()
        assert started.wait(60)
        time.sleep(0.1)
        s.p.send_signal(signal.SIGTERM)
        if second:
            time.sleep(0.2)
            s.p.send_signal(signal.SIGTERM)
        code = s.p.wait(timeout=120)
        for t in threads:
            t.join(timeout=60)
            assert not t.is_alive()
        kinds = {}
        for o in outs:
            kinds[o["end"][0]] = kinds.get(o["end"][0], 0) + 1
        print("    ", args, kinds, "exit", code, sorted({str(o["end"][1:])[:160] for o in outs})[:6])
        return code, kinds, outs


def all_finish():
    code, kinds, outs = kill_in_the_middle(["--parallel", "32"], kts.chat("Tell me a story about a fox.", max_tokens=60))
    assert code == 0 and set(kinds) <= {"finished", "refused"} and kinds["finished"] > 0, kinds


def queue_is_refused():
    code, kinds, outs = kill_in_the_middle(["--parallel", "4"], kts.chat("Tell me a story about a fox.", max_tokens=200, ignore_eos=True))
    assert code == 0 and set(kinds) == {"finished", "refused"}, kinds
    assert all('"draining"' in o["end"][1] for o in outs if o["end"][0] == "refused")


def errors_after_the_timeout():
    code, kinds, outs = kill_in_the_middle(["--parallel", "32", "--drain-timeout", "0"], kts.chat("Tell me a story about a fox.", max_tokens=1900, ignore_eos=True))
    assert code == 0 and set(kinds) <= {"error", "refused"} and kinds["error"] > 0, kinds
    assert all(o["end"][2]["type"] == "unavailable_error" for o in outs if o["end"][0] == "error")


def second_signal():
    code, _, _ = kill_in_the_middle(["--parallel", "32"], kts.chat("Tell me a story about a fox.", max_tokens=1900, ignore_eos=True), second=True)
    assert code == 130, code


def idle_and_loading():
    with kts.Server() as s:
        c = s.connect()
        c.request("GET", "/health")
        assert c.getresponse().read()  # an idle keep-alive connection does not hold the server
        start = time.monotonic()
        assert s.stop() == 0 and time.monotonic() - start < 10
    with kts.Server(wait=False) as s:
        assert s.stop() == 0
    with kts.Server() as s:
        assert s.stop(signal.SIGINT) == 0


if __name__ == "__main__":
    kts.run([all_finish, queue_is_refused, errors_after_the_timeout, second_signal, idle_and_loading])
