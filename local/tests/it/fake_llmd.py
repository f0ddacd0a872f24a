#!/usr/bin/env python3
"""Stands in for the llmd binary: `sim` is a tiny engine, `epp` a router that only shows its endpoints file.

Real processes on real ports, without the real roles, so that the runtime is tested alone.
"""
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def flag(name, default=None):
    for arg in sys.argv:
        if arg.startswith(name + "="):
            return arg.split("=", 1)[1]
    return default


def end_with_parent():
    while os.read(0, 64):
        pass
    os._exit(143)


def serve(port, answer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answer(self.path)
            data = body.encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def sim(path):
    if path == "/env":
        return 200, json.dumps({"argv": sys.argv[1:], "env": dict(os.environ)})
    if path == "/v1/models":
        broken = flag("--broken")
        return (503, "loading") if broken else (200, json.dumps({"data": [{"id": "m"}]}))
    return 404, ""


def epp(path):
    config = open(flag("--config-file")).read()
    marker = "path: "
    file = next(line.split(marker, 1)[1] for line in config.splitlines() if marker in line)
    if path == "/debug/endpoints":
        entries = json.load(open(file))["endpoints"]
        return 200, json.dumps({"endpoints": [
            {"name": f"{e['namespace']}/{e['name']}", "target": f"{e['address']}:{e['port']}", "engineType": "vllm",
             "waiting": 0, "running": 0, "kvCacheUsage": 0.0, "inFlightRequests": 0, "prefixHitRate": None,
             "metricsAgeMs": 1, "ejected": False} for e in entries]})
    return 200, config


if os.environ.get("LLMD_EXIT_WITH_PARENT"):
    threading.Thread(target=end_with_parent, daemon=True).start()
role = sys.argv[1]
if role == "guard":
    os.execv(sys.argv[3], sys.argv[3:])
if flag("--crash"):
    print("about to crash", flush=True)
    sys.exit(7)
if flag("--stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(float(flag("--slow", "0")))
if role == "sim":
    serve(int(flag("--port")), sim)
else:
    serve(int(flag("--metrics-port")), epp)
