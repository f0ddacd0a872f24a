//! Parts that pods share: security, probes, quantities, writable directories.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, GRPCAction, HTTPGetAction,
    LocalObjectReference, ObjectFieldSelector, PodSecurityContext, Probe, ResourceRequirements,
    SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::options::RenderOptions;

/// What the kubelet keeps of a failed container's output, for the operator to name the cause.
pub(super) const LAST_WORDS: &str = "FallbackToLogsOnError";

/// Pod level of the restricted Pod Security standard.
pub(super) fn pod_security(options: &RenderOptions) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: options.run_as_user,
        fs_group: options.run_as_user,
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

/// Container level of the restricted Pod Security standard, with a read-only root.
pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}

pub(super) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        ..ContainerPort::default()
    }
}

pub(super) fn env(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

/// A variable from the pod's own fields (downward API).
pub(super) fn env_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        field_path: path.to_owned(),
        ..ObjectFieldSelector::default()
    };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

pub(super) fn quantities(values: &BTreeMap<String, String>) -> Option<BTreeMap<String, Quantity>> {
    (!values.is_empty()).then(|| {
        values
            .iter()
            .map(|(key, value)| (key.clone(), Quantity(value.clone())))
            .collect()
    })
}

pub(super) fn resources(
    requests: &BTreeMap<String, String>,
    limits: &BTreeMap<String, String>,
) -> Option<ResourceRequirements> {
    let (requests, limits) = (quantities(requests), quantities(limits));
    (requests.is_some() || limits.is_some()).then(|| ResourceRequirements {
        requests,
        limits,
        ..Default::default()
    })
}

/// Timing of a probe, in seconds.
pub(super) struct Timing {
    pub(super) initial: i32,
    pub(super) period: i32,
    pub(super) timeout: i32,
    pub(super) failures: i32,
}

fn timed(timing: &Timing) -> Probe {
    Probe {
        initial_delay_seconds: (timing.initial > 0).then_some(timing.initial),
        period_seconds: Some(timing.period),
        timeout_seconds: Some(timing.timeout),
        failure_threshold: Some(timing.failures),
        ..Probe::default()
    }
}

pub(super) fn http_probe(path: &str, port: &str, timing: &Timing) -> Probe {
    let get = HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::String(port.to_owned()),
        ..HTTPGetAction::default()
    };
    Probe {
        http_get: Some(get),
        ..timed(timing)
    }
}

pub(super) fn grpc_probe(service: &str, port: i32, timing: &Timing) -> Probe {
    Probe {
        grpc: Some(GRPCAction {
            port,
            service: Some(service.to_owned()),
        }),
        ..timed(timing)
    }
}

pub(super) fn empty_dir(name: &str, memory: Option<&str>) -> Volume {
    let source = EmptyDirVolumeSource {
        medium: memory.map(|_| "Memory".to_owned()),
        size_limit: memory.map(|size| Quantity(size.to_owned())),
    };
    Volume {
        name: name.to_owned(),
        empty_dir: Some(source),
        ..Volume::default()
    }
}

pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

pub(super) fn pull_secrets(names: &[String]) -> Option<Vec<LocalObjectReference>> {
    (!names.is_empty()).then(|| {
        names
            .iter()
            .map(|name| LocalObjectReference { name: name.clone() })
            .collect()
    })
}
