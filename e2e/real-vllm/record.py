"""Records what `llmd sidecar` and two real vLLM servers say to each other, for the tests that replay it.

Usage: record.py --llmd PATH --vllm DIRECTORY --out FILE

Each exchange holds the client's request and answer, and both legs: what the prefill and the decode server were asked,
and what they answered. Run by hand when vLLM moves; the file names its version.
"""

import argparse
import contextlib
import http.server
import json
import pathlib
import tempfile
import threading
import urllib.error
import urllib.request

from check import VLLM_ARGS, VLLM_ENV, chat, free_port, get, poll, running
from disaggregated import NIXL, PROMPT, THREADS, completion

KEPT = ("content-type",)


class Tap(http.server.ThreadingHTTPServer):
    """Passes requests on to `target` and keeps the last exchange of each path."""

    def __init__(self, port, target):
        self.target, self.seen = target, []
        super().__init__(("127.0.0.1", port), Handler)

    @contextlib.contextmanager
    def served(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        yield self
        self.shutdown()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["content-length"]))
        status, headers, answered = ask(self.server.target + self.path, asked)
        self.server.seen.append({"path": self.path, "asked": json.loads(asked), "status": status, "headers": headers,
                                 "answered": answered.decode()})
        self.reply(status, headers, answered)

    def do_GET(self):
        self.reply(200, {}, urllib.request.urlopen(self.server.target + self.path, timeout=60).read())

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def ask(url, body, headers=None):
    request = urllib.request.Request(url, body, {"content-type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, kept(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, kept(error.headers), error.read()


def kept(headers):
    return {name: headers[name] for name in KEPT if headers[name]}


def exchanges():
    long = PROMPT.format(500)
    yield "a completion", "/v1/completions", completion(1)
    yield "a streamed completion", "/v1/completions", completion(2, stream=True)
    yield "a chat", "/v1/chat/completions", chat(long)
    yield "a streamed chat with usage", "/v1/chat/completions", chat(
        PROMPT.format(600), stream=True, stream_options={"include_usage": True})
    yield "a refused request", "/v1/completions", completion(3, max_tokens=-1)


def main():
    parser = argparse.ArgumentParser()
    for name in ("--llmd", "--vllm", "--out"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    log_dir = tempfile.mkdtemp(prefix="llmd-record-")
    prefill, decode, outer, metrics = (free_port() for _ in range(4))
    with contextlib.ExitStack() as stack:
        for name, port in [("prefill", prefill), ("decode", decode)]:
            env = {**VLLM_ENV, **THREADS, "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
                   "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port())}
            stack.enter_context(running(name, [
                f"{args.vllm}/venv/bin/vllm", "serve", f"{args.vllm}/model", "--host", "127.0.0.1", "--port", str(port),
                "--served-model-name", "tiny", "--kv-transfer-config", json.dumps(NIXL), *VLLM_ARGS], env, log_dir))
        for port in (prefill, decode):
            poll(f"vLLM at {port}", lambda port=port: get(f"http://127.0.0.1:{port}/health") is not None)
        version = json.loads(get(f"http://127.0.0.1:{prefill}/version"))["version"]
        taps = [stack.enter_context(Tap(free_port(), f"http://127.0.0.1:{port}").served()) for port in (prefill, decode)]
        stack.enter_context(running("sidecar", [
            args.llmd, "sidecar", f"--port={outer}", f"--model-server-port={taps[1].server_address[1]}",
            "--secure-serving=false", f"--metrics-port={metrics}"], None, log_dir))
        poll("the sidecar", lambda: get(f"http://127.0.0.1:{outer}/health") is not None, 60)
        frames = []
        to = {"x-prefiller-host-port": f"127.0.0.1:{taps[0].server_address[1]}"}
        for name, path, body in exchanges():
            for tap in taps:
                tap.seen.clear()
            status, headers, answered = ask(f"http://127.0.0.1:{outer}{path}", json.dumps(body).encode(), to)
            frames.append({"name": name, "path": path, "asked": body, "prefill": list(taps[0].seen),
                           "decode": list(taps[1].seen), "status": status, "headers": headers,
                           "answered": answered.decode()})
    out = {"engine": f"vLLM {version} (CPU), NixlConnector", "exchanges": frames}
    pathlib.Path(args.out).write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
