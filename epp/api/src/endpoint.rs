//! One routable engine port, its identity and its stable load slot.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::slots::Slot;

/// Pod label that names an endpoint's part in serving a request: `prefill`, `decode`, `encode` or several of them.
/// Source: llm-d-router `pkg/plugins/filter/by_label`.
pub const ROLE_LABEL: &str = "llm-d.ai/role";

/// Namespace and name of an endpoint. The name is `<pod>-rank-<N>` for pods (upstream's
/// `EndpointMetadata.ID`) and the entry's own name with file discovery.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName {
    /// Kubernetes namespace; `default` outside a cluster.
    pub namespace: Arc<str>,
    /// Unique name in the namespace.
    pub name: Arc<str>,
}

impl EndpointName {
    /// Builds a name from its parts.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What discovery knows about an endpoint before it gets a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Identity; two specs of one name are the same endpoint.
    pub name: EndpointName,
    /// Pod name, or the entry's name with file discovery.
    pub pod: Arc<str>,
    /// Address requests are sent to.
    pub address: IpAddr,
    /// Port requests are sent to.
    pub port: u16,
    /// Data-parallel rank: index of the port among the pool's target ports.
    pub rank: u32,
    /// Pod labels, read by filters and by the metrics extractor.
    pub labels: BTreeMap<String, String>,
    /// What else is known of where it is.
    pub reach: Reach,
}

/// Other addresses of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Host name that stands in [`Endpoint::target`] in the place of the address.
    pub host: Option<Arc<str>>,
    /// Where its metrics are, if not at its own address.
    pub metrics: Option<SocketAddr>,
    /// Address of its node.
    pub node: Option<IpAddr>,
}

/// One routable engine port. Immutable; a changed spec makes a new `Endpoint` on the same slot.
#[derive(Debug)]
pub struct Endpoint {
    spec: EndpointSpec,
    target: Arc<str>,
    slot: Slot,
}

impl Endpoint {
    /// Binds a spec to its slot.
    pub fn new(spec: EndpointSpec, slot: Slot) -> Self {
        let target = match &spec.reach.host {
            Some(host) => format!("{host}:{}", spec.port).into(),
            None => SocketAddr::new(spec.address, spec.port).to_string().into(),
        };
        Self { spec, target, slot }
    }

    /// What discovery said.
    pub fn spec(&self) -> &EndpointSpec {
        &self.spec
    }

    /// Identity of the endpoint.
    pub fn name(&self) -> &EndpointName {
        &self.spec.name
    }

    /// `ip:port`, IPv6 as `[addr]:port`, or `host:port`: the value of `x-gateway-destination-endpoint`
    /// (Endpoint Picker Protocol 1.0.0).
    pub fn target(&self) -> &Arc<str> {
        &self.target
    }

    /// Socket address of [`Self::target`].
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.spec.address, self.spec.port)
    }

    /// Live load counters; they outlive snapshots and metadata changes.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The value of a pod label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.spec.labels.get(key).map(String::as_str)
    }
}
