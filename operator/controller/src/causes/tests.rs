#![allow(clippy::needless_pass_by_value, reason = "test data is written in place")]

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::*;

const CANARY: &str = "s3cr3t-canary hf_abcdef";

fn pod(status: Value) -> Pod {
    let whole = json!({
        "metadata": {"name": "a-decode-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n1", "containers": []},
        "status": status,
    });
    serde_json::from_value(whole).unwrap()
}

fn unschedulable(message: &str) -> Pod {
    pod(json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}))
}

fn container(state: Value, last: Value) -> Pod {
    pod(json!({"containerStatuses": [{
        "name": "modelserver", "image": "reg.example/vllm:v1", "imageID": "", "ready": false, "restartCount": 2,
        "state": state, "lastState": last}]}))
}

fn waiting(reason: &str, message: &str) -> Pod {
    container(
        json!({"waiting": {"reason": reason, "message": message}}),
        json!({}),
    )
}

fn crashed(code: i32, reason: &str, output: &str) -> Pod {
    container(
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": format!("back-off {CANARY}")}}),
        json!({"terminated": {"exitCode": code, "reason": reason, "message": format!("{CANARY}\n{output}\n{CANARY}")}}),
    )
}

#[test]
fn each_fault_is_named_with_its_fix_and_without_a_word_of_the_log() {
    let named = |pod: &Pod, reason: &str, part: &str| {
        let cause = of_pod(pod).unwrap_or_else(|| panic!("{reason}: no cause"));
        assert_eq!(cause.reason, reason, "{}", cause.message);
        assert!(cause.message.contains(part), "{}", cause.message);
        for word in CANARY.split(' ') {
            assert!(!cause.message.contains(word), "{}", cause.message);
        }
    };
    named(
        &unschedulable(
            "0/12 nodes are available: 4 Insufficient cpu, 12 Insufficient nvidia.com/gpu. preemption: 0/12",
        ),
        "Unschedulable",
        "not enough cpu, nvidia.com/gpu",
    );
    named(
        &unschedulable(
            "0/2 nodes are available: request accelerators: device class gpu.example.com does not exist. no new claims to deallocate",
        ),
        "MissingDeviceClass",
        "no DeviceClass gpu.example.com",
    );
    named(
        &unschedulable("0/2 nodes are available: 2 cannot allocate all claims. still not schedulable"),
        "Unschedulable",
        "devices of its claims",
    );
    named(
        &unschedulable(
            "0/3 nodes are available: 3 node(s) had untolerated taint {nvidia.com/gpu: }. preemption",
        ),
        "Unschedulable",
        "taint nvidia.com/gpu",
    );
    named(
        &unschedulable("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."),
        "Unschedulable",
        "nodeSelector",
    );
    named(
        &unschedulable("0/1 nodes are available: persistentvolumeclaim \"weights\" not found."),
        "MissingClaim",
        "weights",
    );
    named(
        &waiting("ImagePullBackOff", "Back-off pulling: 401 Unauthorized"),
        "ImagePullFailed",
        "imagePullSecrets",
    );
    named(
        &waiting("ErrImagePull", "manifest unknown"),
        "ImagePullFailed",
        "reg.example/vllm:v1",
    );
    named(
        &waiting(
            "CreateContainerConfigError",
            "secret \"llm-d-hf-token\" not found",
        ),
        "MissingSecret",
        "llm-d-hf-token",
    );
    named(
        &waiting(
            "CreateContainerConfigError",
            "couldn't find key HF_TOKEN in Secret ns/token",
        ),
        "MissingKey",
        "HF_TOKEN",
    );
    named(&crashed(137, "OOMKilled", ""), "OutOfMemory", "memory limit");
    named(&crashed(1, "Error", "Traceback"), "CrashLoop", "exit code 1");
    for (output, reason) in [
        (
            "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
            "ModelAccessDenied",
        ),
        (
            "urllib3: Max retries exceeded (Caused by NameResolutionError: Failed to resolve 'huggingface.co')",
            "NoEgress",
        ),
        ("OSError: [Errno 28] No space left on device", "DiskFull"),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "AcceleratorOutOfMemory",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)",
            "DriverTooOld",
        ),
        (
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            "UnsupportedAccelerator",
        ),
        (
            "ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: x",
            "UnsupportedModel",
        ),
        ("OSError: [Errno 98] Address already in use", "PortInUse"),
        (
            "vllm: error: unrecognized arguments: --max-modle-len",
            "BadEngineFlag",
        ),
    ] {
        named(&crashed(1, "Error", output), reason, ":");
    }
    let lost = pod(json!({
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"name": "m", "image": "i", "imageID": "", "ready": true, "restartCount": 0}]}));
    named(&lost, "NodeNotReady", "n1");
}

/// vLLM 0.32.0 as it ended: the cause stands far above the last 2,048 bytes that a termination message holds.
#[test]
fn a_root_cause_above_the_last_words_is_found_in_the_log_but_no_warning_is() {
    let above = [
        "(Worker pid=7) ERROR 11-23 06:20:33 [multiproc_executor.py:1009] torch.OutOfMemoryError: CUDA out of memory.",
        "(EngineCore pid=4) ERROR 11-23 06:20:33 [core.py:1510]     self._init_executor()",
    ];
    let below = [
        "Process EngineCore:",
        "Traceback (most recent call last):",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
    ];
    assert_eq!(engine_failure(&below.join("\n")), None);
    let cause = engine_failure_in_log(&[&above[..], &below].concat().join("\n")).unwrap();
    assert_eq!(cause.reason, "AcceleratorOutOfMemory");
    let warning = "(Worker pid=7) WARNING 11-23 06:20:01 [fa.py:1] FlashAttention 3 is not supported on this GPU, using 2";
    let noted = [&[warning], &below[..]].concat().join("\n");
    assert_eq!(engine_failure_in_log(&noted), None);
}

/// Each as the CPU build of vLLM 0.32.0 printed it, shortened at its ends.
#[test]
fn recorded_failures_of_vllm_are_named() {
    for (output, reason) in [
        (
            "vllm: error: unrecognized arguments: --max-modle-len 5",
            "BadEngineFlag",
        ),
        (
            "vllm serve: error: argument --tensor-parallel-size/-tp: invalid int value: 'two'",
            "BadEngineFlag",
        ),
        (
            "  Value error, Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures: dict_keys([",
            "UnsupportedModel",
        ),
        (
            "  Value error, The checkpoint you are trying to load has model type `foo9` but Transformers does not recognize this architecture.",
            "UnsupportedModel",
        ),
        (
            "OSError: We couldn't connect to 'http://hub.invalid' to load the files, and couldn't find them in the cached files.",
            "NoEgress",
        ),
        (
            "    sock.bind(addr)\nOSError: [Errno 98] Address already in use",
            "PortInUse",
        ),
    ] {
        assert_eq!(engine_failure(output).unwrap().reason, reason, "{output}");
        assert_eq!(engine_failure_in_log(output).unwrap().reason, reason, "{output}");
    }
}

#[test]
fn pods_that_are_ready_new_or_leaving_have_no_cause() {
    let ready = pod(json!({"conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "m", "image": "i", "imageID": "", "ready": true, "restartCount": 3,
            "lastState": {"terminated": {"exitCode": 1}}}]}));
    assert_eq!(of_pod(&ready), None);
    assert_eq!(of_pod(&waiting("ContainerCreating", "")), None);
    let mut leaving = crashed(1, "Error", "");
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    assert_eq!(of_pod(&leaving), None);
}

#[test]
fn workloads_without_pods_name_the_quota_or_the_policy() {
    let deployment = |message: &str| -> Deployment {
        serde_json::from_value(json!({"status": {"conditions": [
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]}}))
        .unwrap()
    };
    let quota = of_workload(&deployment(
        "pods \"x\" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=7, limited: 8",
    ))
    .unwrap();
    assert_eq!(
        (quota.reason, quota.message.as_str()),
        (
            "QuotaExceeded",
            "ResourceQuota gpus is used up (requests.nvidia.com/gpu=2): raise it, or ask for less"
        )
    );
    let policy = of_workload(&deployment(
        "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot",
    ))
    .unwrap();
    assert_eq!(policy.reason, "AdmissionDenied");
    assert!(policy.message.contains("restricted:latest"));
}

#[test]
fn the_way_to_ready_has_phases() {
    let phase_of = |status| phase(&pod(status)).map(|(phase, since)| (phase.to_string(), since.to_string()));
    let scheduled =
        json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}]);
    assert_eq!(
        phase_of(json!({})),
        Some(("waiting for a node".to_owned(), "2026-01-01T00:00:00Z".to_owned()))
    );
    assert_eq!(
        phase_of(json!({"conditions": scheduled})),
        Some(("pulling the image".to_owned(), "2026-01-01T00:00:05Z".to_owned()))
    );
    assert_eq!(
        phase_of(
            json!({"conditions": scheduled, "containerStatuses": [{"name": "m", "image": "i", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:09Z"}}}]})
        ),
        Some(("loading the model".to_owned(), "2026-01-01T00:00:09Z".to_owned()))
    );
}

#[test]
fn every_reason_has_its_row_in_the_documentation_and_no_other() {
    let text = include_str!("../../../../docs/kubernetes/status.md");
    let (_, causes) = text.split_once("## Causes").unwrap();
    let (causes, _) = causes.split_once("\n## ").unwrap();
    let rows = causes.lines().filter(|line| line.starts_with("| `"));
    let mut documented: Vec<&str> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let mut known = [&REASONS[..], &crate::status::REASONS].concat();
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(documented, known);
}
