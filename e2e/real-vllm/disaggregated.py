"""Prefill and decode on two real vLLM servers that move KV blocks by NIXL, behind `llmd sidecar` and `llmd epp`.

Called by check.py. The servers are the CPU build; blocks move over TCP (UCX). What is compared is the same model
without disaggregation: the prefill server asked alone.
"""

import contextlib
import http.client
import json
import pathlib
import re

from check import VLLM_ARGS, VLLM_ENV, chat, counter, free_port, get, poll, post, running

PROMPTS = 20
# Longer than a block of 32 tokens, and different from the first token on: nothing is cached anywhere.
PROMPT = "{0} apples and {0} pears lie on the table of the {0}th house, said the man with {0} hats. " * 6
# Two servers, two threads of NIXL and a picker share few processors: OpenMP's threads would only spin against each other.
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "UCX_TLS": "tcp,self"}
NIXL = {"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_buffer_device": "cpu"}


def scenario(report, llmd, vllm, log_dir):
    report.section("prefill and decode: two real vLLM servers with NixlConnector behind llmd sidecar and llmd epp")
    prefill, decode, outer, sidecar_metrics = (free_port() for _ in range(4))
    proxy, grpc, health, metrics = (free_port() for _ in range(4))
    work = pathlib.Path(log_dir)
    write_configuration(work, prefill, outer)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(contextlib.ExitStack())
        for name, port in [("nixl-prefill", prefill), ("nixl-decode", decode)]:
            where = engine if name == "nixl-prefill" else stack
            env = {**VLLM_ENV, **THREADS, "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
                   "VLLM_NIXL_SIDE_CHANNEL_PORT": str(free_port())}
            command = [f"{vllm}/venv/bin/vllm", "serve", f"{vllm}/model", "--host", "127.0.0.1", "--port", str(port),
                       "--served-model-name", "tiny", "--kv-transfer-config", json.dumps(NIXL), *VLLM_ARGS]
            where.enter_context(running(name, command, env, log_dir))
        stack.enter_context(running("sidecar", [
            llmd, "sidecar", f"--port={outer}", f"--model-server-port={decode}", "--secure-serving=false",
            f"--metrics-port={sidecar_metrics}"], None, log_dir))
        stack.enter_context(running("pd-epp", [
            llmd, "epp", f"--config-file={work / 'pd-epp.yaml'}", f"--grpc-port={grpc}", f"--grpc-health-port={health}",
            f"--metrics-port={metrics}", f"--proxy-port={proxy}", "--proxy-bind-address=127.0.0.1",
            "--secure-serving=false", "--pool-name=tiny", "--tracing=false"], None, log_dir))
        prefill, decode, base, pages = (f"http://127.0.0.1:{port}" for port in (prefill, decode, proxy, sidecar_metrics))
        for url in (prefill, decode):
            poll(f"vLLM at {url}", lambda url=url: get(f"{url}/health") is not None)
        poll("the first prompt of the prefill server",
             lambda: post(base, "/v1/chat/completions", chat("warm up"))[0] == 200 and prefills(pages, "remote") > 0, 60)
        same_answers(report, base, prefill, decode, pages)
        streams(report, base)
        leaving_releases_blocks(report, base, prefill, decode)
        engine.close()
        status, _, body = post(base, "/v1/completions", completion(90_000))
        report.check("with the prefill server gone, the decode server computes the prompt itself",
                     status == 200 and len(json.loads(body)["choices"]) == 1, status)
        before = prefills(pages, "local")
        dead = {"x-prefiller-host-port": prefill.removeprefix("http://")}
        status, _, _ = post(f"http://127.0.0.1:{outer}", "/v1/completions", completion(91_000), dead)
        report.check("the sidecar does so even where it is told to ask the dead one, and counts it",
                     status == 200 and prefills(pages, "local") == before + 1, status)


def completion(number, **extra):
    return {"model": "tiny", "prompt": PROMPT.format(number), "max_tokens": 8, "temperature": 0, **extra}


def write_configuration(work, prefill, decode):
    endpoints = [("prefill", prefill), ("decode", decode)]
    (work / "pd-endpoints.yaml").write_text(json.dumps({"endpoints": [
        {"name": role, "address": "127.0.0.1", "port": str(port), "labels": {"llm-d.ai/role": role}}
        for role, port in endpoints]}))
    (work / "pd-epp.yaml").write_text(json.dumps({
        "apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig",
        "plugins": [
            {"type": "disagg-headers-handler"}, {"type": "always-disagg-pd-decider"},
            {"type": "disagg-profile-handler", "parameters": {"deciders": {"prefill": "always-disagg-pd-decider"}}},
            {"type": "prefill-filter"}, {"type": "decode-filter"}, {"type": "queue-scorer"}, {"type": "max-score-picker"},
            {"type": "file-discovery", "parameters": {"path": str(work / "pd-endpoints.yaml")}},
        ],
        "schedulingProfiles": [
            {"name": role, "plugins": [{"pluginRef": f"{role}-filter"}, {"pluginRef": "queue-scorer"},
                                       {"pluginRef": "max-score-picker"}]} for role in ("prefill", "decode")],
        "dataLayer": {"discovery": {"pluginRef": "file-discovery"}},
    }))


def same_answers(report, base, prefill, decode, pages):
    before = nixl_transfers(decode), prefills(pages, "remote")
    apart = [json.loads(post(base, "/v1/completions", completion(i))[2]) for i in range(PROMPTS)]
    computed = prefills(pages, "remote") - before[1]
    alone = [json.loads(post(prefill, "/v1/completions", completion(i))[2]) for i in range(PROMPTS)]
    texts = [[answer.get("choices", [{}])[0].get("text") for answer in answers] for answers in (apart, alone)]
    equal = sum(one is not None and one == other for one, other in zip(*texts))
    report.check(f"{PROMPTS} prompts: the same tokens as without disaggregation", equal == PROMPTS, f"{equal} equal")
    usage = apart[-1].get("usage", {})
    report.check("usage counts the whole prompt", usage.get("prompt_tokens", 0) > 100, usage)
    moved = nixl_transfers(decode) - before[0]
    # A server that does not answer scrapes for a moment, on a busy machine, is passed over.
    report.check("the prefill server computed the prompts", computed >= PROMPTS * 0.75, f"{computed:.0f} prefill legs")
    report.check("the decode server has read the blocks of each of them by NIXL (its own metrics)", moved == computed,
                 f"{moved:.0f} transfers")


def prefills(pages, where):
    found = re.search(rf'^llm_d_disagg_sidecar_prefills_total{{where="{where}"}} (\d+)$', get(f"{pages}/metrics"), re.M)
    return int(found.group(1)) if found else 0


def nixl_transfers(url):
    """vLLM counts a histogram of transfer times; its `_count` is the number of transfers."""
    return counter(url, "vllm:nixl_xfer_time_seconds_count")


def streams(report, base):
    status, headers, body = post(base, "/v1/chat/completions", chat(
        PROMPT.format(500), stream=True, stream_options={"include_usage": True}))
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    report.check("a streamed chat comes event by event and ends with [DONE]",
                 status == 200 and len(events) > 5 and events[-1:] == ["[DONE]"], f"{len(events)} events")
    usage = json.loads(events[-2]).get("usage") if len(events) > 1 else None
    report.check("its last event carries usage", bool(usage), usage)


def used(url):
    return counter(url, "vllm:kv_cache_usage_perc") + counter(url, "vllm:num_requests_running")


def leaving_releases_blocks(report, base, prefill, decode):
    """Clients that leave in the middle of their stream, and before its first byte."""
    host, port = base.removeprefix("http://").split(":")
    for number in range(6):
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        body = completion(700 + number, max_tokens=2000, ignore_eos=True, stream=True)
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        if number % 2:
            connection.getresponse().read(200)
        connection.close()
    try:
        poll("both servers without blocks in use", lambda: used(prefill) == 0 and used(decode) == 0, 60)
        report.check("clients that leave give all blocks back, of both servers", True)
    except SystemExit:
        report.check("clients that leave give all blocks back, of both servers", False,
                     f"prefill {used(prefill)}, decode {used(decode)}")
    page = get(f"{decode}/metrics")
    failed = re.findall(r"^(vllm:nixl_num_failed\w*_total)(?:\{[^}]*\})? ([0-9.e+-]+)$", page, re.M)
    report.check("no transfer failed", all(float(value) == 0 for _, value in failed), failed)
