//! What engines say when they give up, as a closed table: a line that matches is named, never quoted.
//!
//! Phrases of vLLM, PyTorch, Hugging Face Hub, CUDA and Python as their releases print them.

use super::Cause;

struct Row {
    /// Any of these, in lower case.
    phrases: &'static [&'static str],
    reason: &'static str,
    message: &'static str,
}

/// In this order: a message may hold several, and the first row is the one that explains the others.
const TABLE: [Row; 9] = [
    Row {
        phrases: &["no space left on device", "disk quota exceeded"],
        reason: "DiskFull",
        message: "the disk is full while the engine loads: give the model a claim (pvc://) or the node a larger disk",
    },
    Row {
        phrases: &[
            "gatedrepoerror",
            "gated repo",
            "401 client error",
            "403 client error",
            "repositorynotfounderror",
            "invalid user token",
        ],
        reason: "ModelAccessDenied",
        message: "the model hub refuses access to the model (401 or 403): accept its licence there and put a token of that account into the Secret of spec.model.tokenSecretRef",
    },
    Row {
        phrases: &[
            "cuda driver version is insufficient",
            "nvidia driver on your system is too old",
            "unsupported display driver",
            "forward compatibility was attempted",
        ],
        reason: "DriverTooOld",
        message: "the node's GPU driver is too old for the engine's image: update the driver, or use an image for its CUDA version",
    },
    Row {
        phrases: &[
            "no kernel image is available for execution",
            "is not supported on gpus with compute capability",
            "is not supported on this gpu",
            "with cuda capability sm_",
        ],
        reason: "UnsupportedAccelerator",
        message: "the engine's image has no code for this GPU's architecture: choose other nodes (spec.scheduling.nodeSelector) or another image",
    },
    Row {
        phrases: &[
            "are not supported for now. supported architectures",
            "model architectures [",
            "does not recognize this architecture",
        ],
        reason: "UnsupportedModel",
        message: "the engine does not know the model's architecture: use a newer engine image (spec.engine.image)",
    },
    Row {
        phrases: &[
            "cuda out of memory",
            "torch.outofmemoryerror",
            "no available memory for the cache blocks",
            "larger than the maximum number of tokens that can be stored in kv cache",
            "less than desired gpu memory utilization",
            "hip out of memory",
        ],
        reason: "AcceleratorOutOfMemory",
        message: "the GPU's memory is too small for the model: raise parallelism.tensor, lower max-model-len in spec.engine.args, or use a larger GPU",
    },
    Row {
        phrases: &["address already in use", "errno 98"],
        reason: "PortInUse",
        message: "the engine's port is taken: nothing in spec.engine.extraArgs may open port 8000, and host networking is not used",
    },
    Row {
        phrases: &[
            "unrecognized arguments:",
            "error: argument ",
            "invalid choice:",
            "unexpected argument '",
            "expected one argument",
        ],
        reason: "BadEngineFlag",
        message: "the engine refuses a flag: check spec.engine.args and extraArgs against the image's version; `kubectl logs --previous` names the flag",
    },
    Row {
        phrases: &[
            "name resolution",
            "name or service not known",
            "failed to resolve",
            "max retries exceeded",
            "network is unreachable",
            "couldn't connect to '",
            "localentrynotfounderror",
            "offlinemodeisenabled",
            "connecttimeout",
        ],
        reason: "NoEgress",
        message: "the engine cannot reach the model hub: allow egress, set a proxy, or put the weights on a claim (pvc://)",
    },
];

/// The failure that the last lines of an engine's log tell of. Notes and warnings do not count: engines warn of much
/// that does not end them.
pub fn engine_failure_in_log(log: &str) -> Option<Cause> {
    let is_note = |line: &str| {
        [" INFO ", " WARNING ", " DEBUG "]
            .iter()
            .any(|level| line.contains(level))
    };
    let lines: Vec<&str> = log.lines().filter(|line| !is_note(line)).collect();
    engine_failure(&lines.join("\n"))
}

/// The failure that the last lines of an engine's output tell of.
pub fn engine_failure(output: &str) -> Option<Cause> {
    let output = output.to_lowercase();
    TABLE
        .iter()
        .find(|row| row.phrases.iter().any(|phrase| output.contains(phrase)))
        .map(|row| Cause::stalled(row.reason, row.message))
}
