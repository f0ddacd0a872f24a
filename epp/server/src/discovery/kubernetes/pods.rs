//! From a pod to its endpoints: a pure function of the few fields that matter.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::Object;
use llmd_epp_api::{EndpointName, EndpointSpec, Reach};
use serde::{Deserialize, Serialize};

use super::pool::PoolSpec;

/// Annotations that restrict a pod's ports, in order of precedence (llm-d-router; the second is older).
const ACTIVE_PORTS: [&str; 2] = [
    "llm-d.ai/active-ports",
    "inference.networking.k8s.io/active-ports",
];

/// A pod as it is read: everything else (environment, volumes, container states) is not even decoded.
pub type PodObject = Object<Unread, PodStatus>;

/// A part that is not read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Unread {}

/// The part of a pod's status that is read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct PodStatus {
    #[serde(default, rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(default, rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default)]
    conditions: Vec<PodCondition>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Name, unique in the pool's namespace.
    pub name: Arc<str>,
    /// Labels, read by filters and by the metrics extractor.
    pub labels: BTreeMap<String, String>,
    /// Where it answers; `None` while it must get no requests: no address, not Ready, or on its way
    /// out (a pod with a deletion time stamp leaves at once and drains).
    pub address: Option<IpAddr>,
    /// Address of its node.
    pub node: Option<IpAddr>,
    /// The ports that answer, where the pod says so.
    pub active_ports: Option<Vec<u16>>,
}

impl PodFacts {
    /// Takes the facts out of a pod.
    pub fn of(pod: PodObject) -> Self {
        let ObjectMeta {
            name,
            labels,
            annotations,
            deletion_timestamp,
            ..
        } = pod.metadata;
        let status = pod.status.unwrap_or_default();
        // The aggregate condition: readiness gates count.
        let is_ready = status
            .conditions
            .iter()
            .any(|condition| condition.kind == "Ready" && condition.status == "True");
        let address = status.pod_ip.and_then(|address| address.parse().ok());
        let annotations = annotations.unwrap_or_default();
        let active = ACTIVE_PORTS.into_iter().find_map(|key| annotations.get(key));
        Self {
            name: name.unwrap_or_default().into(),
            labels: labels.unwrap_or_default(),
            address: address.filter(|_| is_ready && deletion_timestamp.is_none()),
            node: status.host_ip.and_then(|address| address.parse().ok()),
            active_ports: active.map(|list| {
                list.split(',')
                    .filter_map(|port| port.trim().parse().ok())
                    .collect()
            }),
        }
    }
}

/// The endpoints of a pod in a pool: one per target port, whose place in the list is the rank.
pub fn endpoints<'a>(
    pod: &'a PodFacts,
    pool: &'a PoolSpec,
    namespace: &'a Arc<str>,
) -> impl Iterator<Item = EndpointSpec> + 'a {
    let address = pod.address.filter(|_| pool.selects(&pod.labels));
    let is_active = |port: u16| {
        pod.active_ports
            .as_ref()
            .is_none_or(|active| active.contains(&port))
    };
    address.into_iter().flat_map(move |address| {
        let ports = pool
            .ports
            .iter()
            .enumerate()
            .filter(move |(_, port)| is_active(**port));
        ports.map(move |(rank, port)| EndpointSpec {
            name: EndpointName::new(Arc::clone(namespace), format!("{}-rank-{rank}", pod.name)),
            pod: Arc::clone(&pod.name),
            address,
            port: *port,
            rank: rank as u32,
            reach: Reach {
                node: pod.node,
                ..Reach::default()
            },
            labels: pod.labels.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> PodFacts {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "decode-0", "namespace": "n", "deletionTimestamp": null, "labels": {"app": "vllm", "role": "decode"}},
            "spec": {"containers": [{"name": "c", "env": [{"name": "TOKEN", "value": "secret"}]}]},
            "status": {
                "podIP": "10.1.2.3",
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}]
            }
        });
        change(&mut object);
        PodFacts::of(serde_json::from_value(object).expect("a pod"))
    }

    fn pool(ports: &[u16]) -> PoolSpec {
        PoolSpec {
            labels: [("app".to_owned(), "vllm".to_owned())].into(),
            ports: ports.to_vec(),
            app_protocol: "http".to_owned(),
        }
    }

    fn targets(pod: &PodFacts, pool: &PoolSpec) -> Vec<String> {
        let namespace = Arc::from("n");
        endpoints(pod, pool, &namespace)
            .map(|spec| format!("{} {}:{} {}", spec.name, spec.address, spec.port, spec.rank))
            .collect()
    }

    #[test]
    fn a_ready_pod_is_one_endpoint_per_port() {
        let pod = pod(|_| ());
        assert_eq!(
            targets(&pod, &pool(&[8000, 8001])),
            [
                "n/decode-0-rank-0 10.1.2.3:8000 0",
                "n/decode-0-rank-1 10.1.2.3:8001 1"
            ]
        );
        let namespace = Arc::from("n");
        let spec = endpoints(&pod, &pool(&[1]), &namespace).next().expect("one");
        assert_eq!((&*spec.pod, spec.labels["role"].as_str()), ("decode-0", "decode"));
    }

    #[test]
    fn a_pod_that_must_get_no_requests_is_no_endpoint() {
        for (what, path, value) in [
            ("not ready", "/status/conditions/1/status", json!("False")),
            ("no condition", "/status/conditions", json!([])),
            ("no address yet", "/status/podIP", json!(null)),
            ("no status", "/status", json!(null)),
            (
                "going",
                "/metadata/deletionTimestamp",
                json!("2026-01-01T00:00:00Z"),
            ),
            ("another application", "/metadata/labels/app", json!("other")),
        ] {
            let pod = pod(|pod| *pod.pointer_mut(path).expect(path) = value);
            assert!(targets(&pod, &pool(&[8000])).is_empty(), "{what}");
        }
    }

    #[test]
    fn active_ports_restrict_the_ranks_and_keep_their_numbers() {
        let mut facts = pod(|pod| {
            pod["metadata"]["annotations"] = json!({"llm-d.ai/active-ports": "8001, x", "inference.networking.k8s.io/active-ports": "8000"});
        });
        assert_eq!(
            targets(&facts, &pool(&[8000, 8001])),
            ["n/decode-0-rank-1 10.1.2.3:8001 1"]
        );
        facts.active_ports = Some(vec![]);
        assert!(targets(&facts, &pool(&[8000])).is_empty());
        let old = pod(|pod| {
            pod["metadata"]["annotations"] = json!({"inference.networking.k8s.io/active-ports": "8000"});
        });
        assert_eq!(
            targets(&old, &pool(&[8000, 8001])),
            ["n/decode-0-rank-0 10.1.2.3:8000 0"]
        );
    }

    #[test]
    fn an_ipv6_address_is_one() {
        let pod = pod(|pod| pod["status"]["podIP"] = json!("fd00::1"));
        assert_eq!(targets(&pod, &pool(&[80])), ["n/decode-0-rank-0 fd00::1:80 0"]);
    }
}
