"""Runs llmd against a real vLLM and reports what was seen.

Usage: check.py --llmd PATH --vllm DIRECTORY --envoy PATH --clients DIRECTORY [--report FILE]

Three scenarios, all on loopback with the CPU build and the tiny model that setup.sh installed:

1. `llmd up -f up.yaml`: llmd starts two vLLM engines from one LLMDeployment; a chat is streamed,
   a long prompt is asked twice, an engine is killed and must come back.
2. Two vLLM servers started by hand behind a real Envoy and `llmd epp`: the same prompt must stay on
   one server (its own prefix-cache counters prove it), errors of the engine must arrive unchanged,
   and the official clients find what they expect.
3. disaggregated.py: prefill and decode on two servers, blocks over NIXL.
4. events.py: what a server publishes about its KV cache.

Exits 0 when every check holds; prints one line per check and writes them as Markdown to --report.
Standard library only: it must run with the interpreter of the machine.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
START_DEADLINE_S = 300
LONG_PROMPT = "The quick brown fox jumps over the lazy dog. " * 120
VLLM_ARGS = [
    "--load-format", "dummy", "--enforce-eager", "--enable-prefix-caching",
    "--max-model-len", "4096", "--block-size", "32",
]
VLLM_ENV = {
    "HF_HUB_OFFLINE": "1",
    "PYTHONHASHSEED": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


class Report:
    """Collects checks; the first failure does not hide the later ones."""

    def __init__(self):
        self.lines = []
        self.failed = 0

    def section(self, title):
        print(f"\n== {title}", flush=True)
        self.lines.append(f"\n## {title}\n")

    def check(self, what, ok, seen=""):
        self.failed += not ok
        line = f"{'ok' if ok else 'FAILED'}: {what}" + (f" ({seen})" if seen != "" else "")
        print(line, flush=True)
        self.lines.append(f"- {line}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def poll(what, probe, deadline_s=START_DEADLINE_S):
    """Repeats `probe` until it returns something true."""
    end = time.monotonic() + deadline_s
    last = None
    while time.monotonic() < end:
        try:
            value = probe()
            if value:
                return value
        except OSError as error:
            last = error
        time.sleep(0.2)
    raise SystemExit(f"gave up after {deadline_s} s waiting for {what}: {last}")


@contextlib.contextmanager
def running(name, command, env=None, log_dir=None):
    """Runs a process group and ends it with the block."""
    log = open(pathlib.Path(log_dir) / f"{name}.log", "wb")
    process = subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        log.close()


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def post(base, path, body, headers=None):
    """Returns status, headers and body; never raises for an HTTP status."""
    host, port = base.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    try:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, payload, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def chat(content, **extra):
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 16,
            "temperature": 0, **extra}


def counter(base, name):
    """Sum of one counter over its series."""
    pattern = re.compile(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? ([0-9.e+-]+)$", re.M)
    return sum(float(value) for value in pattern.findall(get(f"{base}/metrics")))


def streamed_chat(report, base):
    status, headers, body = post(base, "/v1/chat/completions",
                                 chat("Say something.", stream=True, stream_options={"include_usage": True}))
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    report.check("a streamed chat is answered as server-sent events",
                 status == 200 and headers.get("content-type", "").startswith("text/event-stream"), status)
    report.check("the stream ends with [DONE]", events[-1:] == ["[DONE]"], f"{len(events)} events")
    usage = [json.loads(event).get("usage") for event in events[:-1]]
    report.check("the last event carries usage", bool(usage) and bool(usage[-1]), usage[-1] if usage else "")


def stream_outlives_its_engine(report, base, vllm):
    """Kills the engine of a running stream; the stream must go on as if nothing had happened."""
    tokens = 2000
    body = {**chat("Count as far as you can."), "max_tokens": tokens, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}}
    host, port = base.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    events, killed = [], False
    for line in answer:
        if line.startswith(b"data: "):
            events.append(line[6:].strip().decode())
        if len(events) >= 20 and len(events) % 20 == 0 and not killed:
            busy = [pids for url, pids in engine_urls(vllm).items() if counter(url, "vllm:num_requests_running") > 0]
            killed = len(busy) == 1
            for pid in sum(busy, []):
                os.kill(pid, signal.SIGKILL)
    connection.close()
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    report.check("the one busy engine was killed in the middle of a stream", killed)
    report.check("the stream goes on under one id, without an error",
                 len({chunk.get("id") for chunk in chunks}) == 1 and not any("error" in chunk for chunk in chunks),
                 f"{len(chunks)} events")
    reasons = [choice.get("finish_reason") for chunk in chunks for choice in chunk.get("choices", [])]
    report.check("it ends at its token cap, with [DONE]",
                 [reason for reason in reasons if reason] == ["length"] and events[-1:] == ["[DONE]"], events[-1:])
    usage = chunks[-1].get("usage") or {}
    report.check("its usage counts the whole answer", usage.get("completion_tokens") == tokens, usage)


def errors_pass_through(report, base):
    status, _, body = post(base, "/v1/chat/completions", {**chat("x"), "model": "no-such-model"})
    report.check("an unknown model is the engine's own 404", status == 404 and b"no-such-model" in body, status)
    status, _, body = post(base, "/v1/chat/completions", b'{"model": "tiny", "messages": [')
    report.check("malformed JSON is refused with 400", status == 400, body[:90].decode(errors="replace"))


def scenario_up(report, llmd, vllm, log_dir):
    report.section("llmd up with two real vLLM engines")
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    # The claim of the CR is a directory of this machine here.
    command = [llmd, "up", "-f", str(HERE / "up.yaml"), "--port", str(port), "-o", "plain",
               "--claim", f"models={vllm}"]
    env = {**VLLM_ENV, "PATH": f"{vllm}/venv/bin:{os.environ['PATH']}"}
    with running("up", command, env, log_dir):
        began = time.monotonic()
        poll("the first answer of llmd up",
             lambda: post(base, "/v1/chat/completions", chat("warm up"))[0] == 200)
        report.check("the service answers", True, f"{time.monotonic() - began:.0f} s after the start, model load included")
        models = json.loads(get(f"{base}/v1/models"))
        report.check("/v1/models lists the model of the CR", models["data"][0]["id"] == "tiny", models["data"][0]["id"])
        streamed_chat(report, base)
        cached = []
        for _ in range(3):
            _, _, body = post(base, "/v1/chat/completions", chat(LONG_PROMPT))
            usage = json.loads(body)["usage"]
            cached.append(usage["prompt_tokens"])
        report.check("a long prompt is answered three times", len(set(cached)) == 1, f"prompt tokens {cached[0]}")
        errors_pass_through(report, base)
        stream_outlives_its_engine(report, base, vllm)
        poll("the engine of the stream", lambda: engine_count(vllm) >= 2)
        poll("both engines to answer", lambda: all(get(f"{url}/health") is not None for url in engine_urls(vllm)))
        victim = engine_pids(vllm)[0]
        os.kill(victim, signal.SIGKILL)
        statuses = [post(base, "/v1/chat/completions", chat(f"after the kill {i}"))[0] for i in range(20)]
        report.check("kill -9 of one engine: the next 20 requests succeed", statuses == [200] * 20, statuses)
        poll("the killed engine", lambda: engine_count(vllm) >= 2)
        report.check("the killed engine is started again", True)
    report.check("the end of llmd up ends its engines", poll("engines to end", lambda: engine_count(vllm) == 0, 60))


def engine_pids(vllm):
    """API server processes of our vLLM installation (not their worker children)."""
    pids = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if f"{vllm}/venv/bin/vllm".encode() in words and b"serve" in words:
                    pids.append(int(entry.name))
    return sorted(pids)


def engine_urls(vllm):
    """Address to process ids, from the `--port` of each engine's command line; a worker inherits its parent's."""
    urls = {}
    for pid in engine_pids(vllm):
        with contextlib.suppress(OSError):
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            port = next((word.removeprefix("--port=") for word in words if word.startswith("--port=")), None)
            urls.setdefault(f"http://127.0.0.1:{port or words[words.index('--port') + 1]}", []).append(pid)
    return urls


def engine_count(vllm):
    return len(engine_pids(vllm))


def official_clients(report, base, clients, engines):
    """Both clients, one after the other; engines must be left without a request."""
    node = pathlib.Path(clients) / "openai-node" / "llmd-journey.mjs"
    # Bare imports are resolved from the importing file.
    node.write_text((HERE / "journey.mjs").read_text())
    python = {**os.environ, "PYTHONPATH": str(pathlib.Path(clients) / "openai-python")}
    for name, command, env in [
        ("Python", [sys.executable, str(HERE / "journey.py"), f"{base}/v1"], python),
        ("Node", ["node", str(node), f"{base}/v1"], None),
    ]:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        report.check(f"the official {name} client: usage, tools, 1 MB, typed errors, leaving in mid-stream",
                     done.stdout.strip() == "fine", done.stderr.strip()[-600:])
    node.unlink()

    def idle():
        return all(counter(engine, "vllm:num_requests_running") == 0 for engine in engines)
    try:
        poll("engines without a request", idle, 30)
        report.check("clients that left have left no request", True)
    except SystemExit as error:
        report.check("clients that left have left no request", False, error)


def scenario_envoy(report, llmd, vllm, envoy, clients, log_dir):
    report.section("two real vLLM servers behind Envoy and llmd epp")
    ports = [free_port(), free_port()]
    grpc, health, metrics, listener, admin = (free_port() for _ in range(5))
    work = pathlib.Path(log_dir)
    (work / "endpoints.yaml").write_text(json.dumps({"endpoints": [
        {"name": f"vllm-{i}", "address": "127.0.0.1", "port": str(port)} for i, port in enumerate(ports)]}))
    (work / "epp.yaml").write_text(json.dumps({
        "apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "queue-scorer"}, {"type": "kv-cache-utilization-scorer"}, {"type": "prefix-cache-scorer"},
            {"type": "file-discovery", "parameters": {"path": str(work / "endpoints.yaml")}},
        ],
        "schedulingProfiles": [{"name": "default", "plugins": [
            {"pluginRef": "queue-scorer", "weight": 2}, {"pluginRef": "kv-cache-utilization-scorer", "weight": 2},
            {"pluginRef": "prefix-cache-scorer", "weight": 3}]}],
        "dataLayer": {"discovery": {"pluginRef": "file-discovery"}},
    }))
    bootstrap = (HERE / "envoy.yaml").read_text()
    for key, value in {"LISTENER": listener, "ADMIN": admin, "EXT_PROC": grpc}.items():
        bootstrap = bootstrap.replace(f"@{key}@", str(value))
    (work / "envoy.yaml").write_text(bootstrap)
    engines = [[f"{vllm}/venv/bin/vllm", "serve", f"{vllm}/model", "--host", "127.0.0.1", "--port", str(port),
                "--served-model-name", "tiny", "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
                *VLLM_ARGS] for port in ports]
    epp = [llmd, "epp", f"--config-file={work / 'epp.yaml'}", f"--grpc-port={grpc}", f"--grpc-health-port={health}",
           f"--metrics-port={metrics}", "--secure-serving=false", "--pool-name=tiny", "--pool-namespace=default", "-v=2",
           "--tracing=false"]
    with contextlib.ExitStack() as stack:
        for i, command in enumerate(engines):
            stack.enter_context(running(f"vllm-{i}", command, VLLM_ENV, log_dir))
        stack.enter_context(running("epp", epp, None, log_dir))
        stack.enter_context(running("envoy", [envoy, "-c", str(work / "envoy.yaml"), "--concurrency", "2",
                                              "--base-id", str(20000 + os.getpid() % 10000), "--log-level", "warn"], None, log_dir))
        direct = [f"http://127.0.0.1:{port}" for port in ports]
        for base in direct:
            poll(f"vLLM at {base}", lambda base=base: get(f"{base}/health") is not None)
        base = f"http://127.0.0.1:{listener}"
        poll("the first answer through Envoy", lambda: post(base, "/v1/chat/completions", chat("warm up"))[0] == 200, 60)
        streamed_chat(report, base)

        hits = [counter(url, "vllm:prefix_cache_hits_total") for url in direct]
        for _ in range(6):
            post(base, "/v1/chat/completions", chat(LONG_PROMPT))
        gained = [counter(url, "vllm:prefix_cache_hits_total") - before for url, before in zip(direct, hits)]
        report.check("six equal long prompts stay on one server (its own prefix-cache hit counter)",
                     min(gained) == 0 and max(gained) > 0, f"tokens hit {gained}")
        served = [counter(url, "vllm:request_success_total") for url in direct]
        for i in range(12):
            post(base, "/v1/chat/completions", chat(f"{i} is a number. " * 30))
        spread = [counter(url, "vllm:request_success_total") - before for url, before in zip(direct, served)]
        report.check("twelve different prompts use both servers", min(spread) > 0, f"requests {spread}")
        page = get(f"http://127.0.0.1:{metrics}/metrics")
        ready = re.search(r"^llm_d_epp_ready_endpoints(?:\{[^}]*\})? (\d+)", page, re.M)
        report.check("the EPP scrapes both servers", bool(ready) and ready.group(1) == "2", ready.group(0) if ready else "")
        prompt = {"model": "tiny", "prompt": [1, 2, 3, 9007199254740993 % 4096], "max_tokens": 4, "temperature": 0}
        through, alone = post(base, "/v1/completions", prompt)[2], post(direct[0], "/v1/completions", prompt)[2]
        report.check("an answer through the EPP equals the engine's own",
                     json.loads(through)["choices"] == json.loads(alone)["choices"])
        errors_pass_through(report, base)
        official_clients(report, base, clients, direct)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llmd", required=True)
    parser.add_argument("--vllm", required=True)
    parser.add_argument("--envoy", required=True)
    parser.add_argument("--clients", required=True)
    parser.add_argument("--report")
    options = parser.parse_args()
    report = Report()
    log_dir = tempfile.mkdtemp(prefix="llmd-real-vllm-")
    print(f"logs in {log_dir}")
    scenario_envoy(report, options.llmd, options.vllm, options.envoy, options.clients, log_dir)
    scenario_up(report, options.llmd, options.vllm, log_dir)
    # It takes its helpers from here.
    sys.modules["check"] = sys.modules[__name__]
    import disaggregated
    import events
    disaggregated.scenario(report, options.llmd, options.vllm, log_dir)
    events.scenario(report, options.llmd, options.vllm, log_dir)
    if options.report:
        pathlib.Path(options.report).write_text("\n".join(report.lines) + "\n")
    print(f"\n{report.failed} failed")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
