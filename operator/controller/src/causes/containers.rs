//! Containers that do not start or do not stay.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

use super::scheduling::between;
use super::{CRASH_LOOP, Cause, engine_failure};

/// The first container, in the pod's order, that has a trouble of its own.
pub(super) fn of(pod: &Pod, status: &PodStatus) -> Option<Cause> {
    if status.reason.as_deref() == Some("Evicted") {
        let message = "a pod was evicted: its node ran out of memory or disk; see `kubectl describe pod`";
        return Some(Cause::passing("Evicted", message));
    }
    let init = status.init_container_statuses.iter().flatten();
    let containers = status.container_statuses.iter().flatten();
    init.chain(containers)
        .find_map(|container| of_container(pod, container))
}

fn of_container(pod: &Pod, container: &ContainerStatus) -> Option<Cause> {
    let state = container.state.as_ref();
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let said = waiting.message.as_deref().unwrap_or_default();
        match waiting.reason.as_deref().unwrap_or_default() {
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" => {
                return Some(image(&container.image, said));
            }
            "ErrImageNeverPull" => {
                let message = format!(
                    "image {} is not on the node and its pull policy is Never: load it there, or use IfNotPresent",
                    container.image
                );
                return Some(Cause::stalled("ImagePullFailed", message));
            }
            "InvalidImageName" => {
                let message = format!("image {} is no valid reference: correct it", container.image);
                return Some(Cause::stalled("ImagePullFailed", message));
            }
            "CreateContainerConfigError" => return Some(configuration(said)),
            "CreateContainerError" | "RunContainerError" => {
                let message = format!(
                    "container {} cannot be created: see `kubectl describe pod`",
                    container.name
                );
                return Some(Cause::stalled("ContainerCannotStart", message));
            }
            _ => {}
        }
    }
    let ended = ended(state).or_else(|| {
        // Running again, but it has been here before: say why, until it is ready.
        ended(container.last_state.as_ref()).filter(|_| !container.ready)
    })?;
    (ended.exit_code != 0 || container.restart_count > 0).then(|| crash(pod, container, ended))
}

fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

fn image(name: &str, said: &str) -> Cause {
    let said = said.to_ascii_lowercase();
    let why = if said.contains("unauthorized")
        || said.contains("authentication required")
        || said.contains("authorization failed")
        || said.contains("403 forbidden")
    {
        "the registry refuses access: name a pull Secret in spec.security.imagePullSecrets"
    } else if said.contains("not found") || said.contains("manifest unknown") {
        "no such image: check its name and tag"
    } else if said.contains("no such host")
        || said.contains("i/o timeout")
        || said.contains("connection refused")
    {
        "the registry cannot be reached from the node: check its network, or use a mirror"
    } else if said.contains("toomanyrequests") || said.contains("too many requests") {
        "the registry limits the rate of pulls: wait, or name a pull Secret"
    } else {
        "see `kubectl describe pod`"
    };
    Cause::stalled("ImagePullFailed", format!("image {name} cannot be pulled: {why}"))
}

fn configuration(said: &str) -> Cause {
    for (kind, mark) in [("Secret", "secret \""), ("ConfigMap", "configmap \"")] {
        if let Some(name) = between(said, mark, "\"").filter(|_| said.contains("not found")) {
            let message = format!("{kind} {name} does not exist in this namespace: create it");
            return Cause::stalled(
                if kind == "Secret" {
                    "MissingSecret"
                } else {
                    "MissingConfigMap"
                },
                message,
            );
        }
    }
    if let Some(key) = between(said, "couldn't find key ", " in ") {
        let message = format!("a Secret or ConfigMap has no key {key}: add the key, or correct its name");
        return Cause::stalled("MissingKey", message);
    }
    if said.contains("runAsNonRoot") {
        let message = "an image runs as root, which is not allowed: use one with a user of its own, or let the operator set one (--run-as-user)";
        return Cause::stalled("ContainerCannotStart", message);
    }
    let message = "a container's configuration is wrong: see `kubectl describe pod`";
    Cause::stalled("ContainerCannotStart", message)
}

fn crash(pod: &Pod, container: &ContainerStatus, ended: &ContainerStateTerminated) -> Cause {
    if ended.reason.as_deref() == Some("OOMKilled") {
        let message = format!(
            "container {} ran out of memory and was killed: raise its memory limit",
            container.name
        );
        return Cause::stalled("OutOfMemory", message);
    }
    if let Some(cause) = engine_failure(ended.message.as_deref().unwrap_or_default()) {
        return cause;
    }
    let name = pod.metadata.name.as_deref().unwrap_or("POD");
    let message = format!(
        "container {} ends with exit code {}: see `kubectl logs {name} -c {} --previous`",
        container.name, ended.exit_code, container.name
    );
    Cause::stalled(CRASH_LOOP, message)
}
