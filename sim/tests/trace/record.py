#!/usr/bin/env python3
"""Records how a real vLLM answers, for the calibration test of the simulator.

Start a server with a small cache and few slots, so that queueing, hits and preemption are visible:

    vllm serve MODEL --served-model-name tiny --max-model-len 4096 --block-size 32 --enable-prefix-caching \
        --enable-prompt-tokens-details --num-gpu-blocks-override 513 --max-num-seqs 8 --max-num-batched-tokens 2048

(with OMP_NUM_THREADS=1; on a machine that is not idle give server and recorder real-time priority,
`chrt -a -f -p 5 PID`), then

    record.py http://127.0.0.1:8000 vllm-0.32-cpu.json vllm-0.32-metrics.txt

Prompts are random token ids (exact lengths, no accidental prefix). Cases marked "fit" calibrate the
step model, cases marked "check" are predicted from it.
Times are seconds on the client's clock. Standard library only.
"""
import datetime
import http.client
import json
import os
import platform
import random
import sys
import threading
import time
import urllib.parse

VOCABULARY = 4096
RUNS = 7
SAMPLE_EVERY = 0.02

# name, part, [prompt tokens per request], shared prefix tokens, output tokens
CASES = [
    ("single 64", "fit", [64], 0, 32),
    ("single 512", "fit", [512], 0, 32),
    ("single 1024", "fit", [1024], 0, 32),
    ("single 2048", "fit", [2048], 0, 32),
    ("single 3584", "fit", [3584], 0, 32),
    ("burst 16 x 64", "fit", [64] * 16, 0, 32),
    ("burst 16 x 512", "fit", [512] * 16, 0, 32),
    ("single 32", "check", [32], 0, 32),
    ("single 256", "check", [256], 0, 32),
    ("single 768", "check", [768], 0, 32),
    ("single 1536", "check", [1536], 0, 32),
    ("single 3000", "check", [3000], 0, 32),
    ("single 3500", "check", [3500], 0, 32),
    ("prefix 1024 of 1280", "check", [1280], 1024, 32),
    ("prefix 2048 of 3072", "check", [3072], 2048, 32),
    ("prefix 3488 of 3500", "fit", [3500], 3488, 32),
    ("burst 8 x 256", "check", [256] * 8, 0, 64),
    ("burst 16 x 256", "check", [256] * 16, 0, 64),
    ("burst 16 x 1024", "check", [1024] * 16, 0, 32),
    ("burst 16 x 1024 prefix 768", "check", [1024] * 16, 768, 32),
    ("burst 16 mixed", "check", [64, 128, 256, 512, 1024, 2048, 96, 160] * 2, 0, 48),
    ("pressure 8 x 1984", "check", [1984] * 8, 0, 96),
]
GAUGES = ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"]
COUNTERS = ["vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total", "vllm:num_preemptions_total"]


def page(host, connection=None):
    connection = connection or http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


def values(text):
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name = line.split("{", 1)[0]
        if name in GAUGES or name in COUNTERS:
            found[name] = found.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
    return found


def tokens(rng, count):
    return [rng.randrange(300, VOCABULARY) for _ in range(count)]


def stream(host, prompt, output, ready, out):
    body = json.dumps({
        "model": "tiny", "prompt": prompt, "max_tokens": output, "ignore_eos": True, "temperature": 0,
        "stream": True, "stream_options": {"include_usage": True},
    })
    connection = http.client.HTTPConnection(host, timeout=300)
    connection.connect()
    ready.wait()
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    stamps = []
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if event["choices"]:
            stamps.append(time.perf_counter())
        elif event.get("usage"):
            details = event["usage"].get("prompt_tokens_details") or {}
            out["cached"] = details.get("cached_tokens") or 0
            assert event["usage"]["completion_tokens"] == output, event
    out.update(start=start, ttft=stamps[0] - start, e2e=stamps[-1] - start, itl=(stamps[-1] - stamps[0]) / (output - 1))


def run(host, rng, prompts, prefix_tokens, output):
    prefix = tokens(rng, prefix_tokens)
    if prefix:
        warm, go = {}, threading.Event()
        go.set()
        stream(host, prefix + tokens(rng, 32), 2, go, warm)
    bodies = [prefix + tokens(rng, n - prefix_tokens) for n in prompts]
    go, results = threading.Event(), [{} for _ in bodies]
    threads = [threading.Thread(target=stream, args=(host, b, output, go, r)) for b, r in zip(bodies, results)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    before, samples, connection = values(page(host)), [], http.client.HTTPConnection(host, timeout=30)
    begin = time.perf_counter()
    go.set()
    while any(thread.is_alive() for thread in threads):
        now = time.perf_counter() - begin
        v = values(page(host, connection))
        samples.append([round(now, 4), v[GAUGES[0]], v[GAUGES[1]], round(v[GAUGES[2]], 6)])
        time.sleep(SAMPLE_EVERY)
    for thread in threads:
        thread.join()
    time.sleep(0.1)
    after = values(page(host))
    start = min(r["start"] for r in results)
    return {
        "arrival": [round(r["start"] - start, 6) for r in results],
        "ttft": [round(r["ttft"], 6) for r in results],
        "itl": [round(r["itl"], 6) for r in results],
        "e2e": [round(r["e2e"], 6) for r in results],
        "cached": [r["cached"] for r in results],
        "queries": after[COUNTERS[0]] - before[COUNTERS[0]],
        "hits": after[COUNTERS[1]] - before[COUNTERS[1]],
        "preemptions": after[COUNTERS[2]] - before[COUNTERS[2]],
        "peak_running": max(s[1] for s in samples),
        "peak_waiting": max(s[2] for s in samples),
        "peak_usage": max(s[3] for s in samples),
    }


def main():
    url, trace_path, page_path = sys.argv[1:4]
    host = urllib.parse.urlsplit(url).netloc
    rng = random.Random(7)
    for _ in range(3):  # the first steps of a server compile and allocate
        run(host, rng, [256] * 4, 0, 16)
    cases = [{"name": n, "part": part, "prompts": p, "prefix": x, "output": o, "runs": []} for n, part, p, x, o in CASES]
    for _ in range(RUNS):  # rounds over all cases, so that noise of the machine spreads over them
        for case in cases:
            case["runs"].append(run(host, rng, case["prompts"], case["prefix"], case["output"]))
    text = page(host)
    config = next(line for line in text.splitlines() if line.startswith("vllm:cache_config_info{"))
    labels = dict(part.split("=", 1) for part in config[config.index("{") + 1:config.index("}")].split(",") if "=" in part)
    trace = {
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "architecture": platform.machine(),
                    "date": datetime.date.today().isoformat(),
                    "note": "vLLM 0.32.0 CPU build, 2-layer random Llama, OMP_NUM_THREADS=1, server and recorder under "
                            "SCHED_FIFO because the machine also compiled other programs"},
        "engine": {"block_size": int(labels["block_size"].strip('"')), "blocks": int(labels["num_gpu_blocks"].strip('"')),
                   "max_num_seqs": 8, "max_num_batched_tokens": 2048},
        "cases": cases,
    }
    rows = ",\n".join(
        " {" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in case.items() if k != "runs") + ', "runs": [\n  '
        + ",\n  ".join(json.dumps(r) for r in case["runs"]) + "]}" for case in cases)
    with open(trace_path, "w") as file:
        file.write("{\n\"machine\": %s,\n\"engine\": %s,\n\"cases\": [\n%s\n]}\n" % (
            json.dumps(trace["machine"]), json.dumps(trace["engine"]), rows))
    with open(page_path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
