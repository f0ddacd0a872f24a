"""KV events of a real vLLM, read by `llmd kv-events`. Called by check.py."""

import json
import subprocess

from check import VLLM_ARGS, VLLM_ENV, free_port, get, poll, post, running
from disaggregated import PROMPT, THREADS, completion


def scenario(report, llmd, vllm, log_dir):
    report.section("KV events: one real vLLM server that publishes them, and llmd kv-events")
    port, events = free_port(), free_port()
    config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{events}", "topic": "kv@here@tiny"}
    command = [f"{vllm}/venv/bin/vllm", "serve", f"{vllm}/model", "--host", "127.0.0.1", "--port", str(port),
               "--served-model-name", "tiny", "--kv-events-config", json.dumps(config), *VLLM_ARGS]
    url = f"http://127.0.0.1:{port}"
    with running("events", command, {**VLLM_ENV, **THREADS}, log_dir):
        poll("vLLM", lambda: get(f"{url}/health") is not None)
        verb = subprocess.Popen([llmd, "kv-events", f"tcp://127.0.0.1:{events}", "--count", "3"], stdout=subprocess.PIPE)
        for number in range(50):
            post(url, "/v1/completions", completion(number))
            if verb.poll() is not None:
                break
        lines = [json.loads(line) for line in verb.communicate(timeout=30)[0].splitlines()]
    report.check("three events of prompts are printed", len(lines) == 3, [line["type"] for line in lines])
    stored = lines[0] if lines else {}
    tokens, size = stored.get("token_ids", []), stored.get("block_size", 0)
    report.check("they are whole blocks of the server's size with their tokens",
                 size == 32 and tokens and len(tokens) == size * len(stored["block_hashes"]),
                 f"{len(tokens)} tokens of {len(PROMPT.format(0))} characters, blocks of {size}")
    report.check("they name topic and medium", stored.get("topic") == "kv@here@tiny" and stored.get("medium") == "GPU",
                 (stored.get("topic"), stored.get("medium")))
