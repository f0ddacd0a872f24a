#!/bin/sh
# Stands in for vLLM: ends as FAULT says, in words that the real one was heard to say, or serves as our simulator does.
# Around them, and in the middle of its lines, stands a token that must go nowhere.
canary=hf_canaryOfTheEnginesLog
echo "INFO 11-23 06:19:00 [entry.py:1] vLLM API server, HF_TOKEN=$canary"

say() { echo "$1 ($canary)" >&2; }

# What waited for the engine core ends with more stack trace than a termination message holds.
core_failed() {
    say "(EngineCore pid=4) ERROR 11-23 06:20:33 [core.py:1510] $1"
    line=0
    while [ $line -lt 60 ]; do
        echo "  File \"/opt/vllm/lib/python3.12/site-packages/vllm/v1/engine/core_client.py\", line $line, in __init__" >&2
        line=$((line + 1))
    done
    say "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
}

# A phase lasts until the file of its name is there.
phase() {
    echo "$2 $canary"
    until [ -e "/tmp/$1" ]; do sleep 0.2; done
}

case "$FAULT" in
crash) say "Segmentation fault of no name"; exit 3 ;;
memory)
    x=0123456789abcdef
    # 128 MiB, of which a few copies exist at a time
    while [ ${#x} -lt 134217728 ]; do x=$x$x; done
    ;;
gated) say "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url https://huggingface.co/x."; exit 1 ;;
egress) say "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files."; exit 1 ;;
disk) say "OSError: [Errno 28] No space left on device: '/.cache/huggingface/hub/x'"; exit 1 ;;
cuda) core_failed "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."; exit 1 ;;
driver) core_failed "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."; exit 1 ;;
architecture) say "  Value error, Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: dict_keys(['LlamaForCausalLM'])"; exit 1 ;;
port) say "OSError: [Errno 98] Address already in use"; exit 1 ;;
phases)
    phase downloaded "(Worker pid=7) INFO 11-23 06:21:15 [gpu_model_runner.py:5040] Starting to load model org/model..."
    phase loaded "(Worker pid=7) INFO 11-23 06:21:15 [weight_utils.py:533] Time spent downloading weights for org/model: 31.2 seconds"
    phase compiled "(Worker pid=7) INFO 11-23 06:21:16 [backends.py:1167] Dynamo bytecode transform time: 4.11 s"
    phase warm "(Worker pid=7) INFO 11-23 06:21:30 [monitor.py:20] torch.compile took 14.21 s in total"
    ;;
esac
for argument; do
    case "$argument" in
    --max-modle-len*)
        say "vllm: error: unrecognized arguments: $argument"
        exit 2
        ;;
    esac
done
exec /llmd sim --model=demo --host=0.0.0.0 --port=8000
