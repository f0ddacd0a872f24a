//! Envoy's endpoint discovery: the picker tells Envoy the endpoints that it picks from.
//!
//! ```text
//!  Envoy ──StreamEndpoints(cluster)──▶ Subscription ◀── Changes (each new set of endpoints)
//!        ◀──all endpoints, at once and with each change──┘
//! ```
//!
//! With these Envoy can follow the picker's list of endpoints from one to the next (`override_host`), and send requests
//! somewhere by itself while the picker is away: it keeps what it was told last (design note 0011).

pub mod proto;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use llmd_epp_api::Snapshot;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

use crate::extproc::Snapshots;
use proto::{
    Address, ClusterLoadAssignment, DiscoveryRequest, DiscoveryResponse, Endpoint, LbEndpoint, Locality,
    Resource, SocketAddress,
};

/// HTTP/2 path of the only method.
pub const STREAM: &str = "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints";
/// What is told.
pub const TYPE_URL: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// Most clusters that one stream may ask for; Envoy asks for one per stream.
const MOST_CLUSTERS: usize = 64;

/// How long an Envoy may need to take a new set over, its workers included.
const SETTLE: Duration = Duration::from_millis(50);

/// Told about each new set of endpoints.
pub struct Changes {
    version: watch::Sender<u64>,
    subscribers: Arc<AtomicUsize>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            version: watch::Sender::new(0),
            subscribers: Arc::default(),
        }
    }
}

impl Changes {
    /// There is another set. `known` is called when everybody who is told knows it, at once where nobody is: a request
    /// that waits for an endpoint must not reach Envoy before the endpoint does. It is not called for a set that has
    /// been replaced by then.
    pub fn announce(&self, known: impl FnOnce() + Send + 'static) {
        self.version.send_modify(|version| *version += 1);
        if self.subscribers.load(Ordering::Acquire) == 0 {
            return known();
        }
        let version = self.version.subscribe();
        let announced = *version.borrow();
        tokio::spawn(async move {
            tokio::time::sleep(SETTLE).await;
            if *version.borrow() == announced {
                known();
            }
        });
    }

    /// The service that tells them.
    pub fn service(&self, snapshots: Snapshots, stop: CancellationToken) -> Eds {
        Eds {
            snapshots,
            changes: self.version.subscribe(),
            subscribers: Arc::clone(&self.subscribers),
            stop,
        }
    }
}

/// The service.
#[derive(Clone)]
pub struct Eds {
    snapshots: Snapshots,
    changes: watch::Receiver<u64>,
    subscribers: Arc<AtomicUsize>,
    /// Ends the streams: Envoy goes on with what it knows.
    stop: CancellationToken,
}

impl StreamingService<DiscoveryRequest> for Eds {
    type Response = DiscoveryResponse;
    type ResponseStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        self.subscribers.fetch_add(1, Ordering::AcqRel);
        let subscription = Subscription {
            eds: self.clone(),
            incoming: request.into_inner(),
            clusters: Vec::new(),
            version: 0,
        };
        std::future::ready(Ok(Response::new(subscription.responses().boxed())))
    }
}

/// One stream of one Envoy.
struct Subscription {
    eds: Eds,
    incoming: Streaming<DiscoveryRequest>,
    clusters: Vec<String>,
    version: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.eds.subscribers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Subscription {
    fn responses(self) -> impl Stream<Item = Result<DiscoveryResponse, Status>> + Send {
        unfold(self, async |mut subscription| {
            let response = subscription.next().await?;
            Some((response, subscription))
        })
    }

    async fn next(&mut self) -> Option<Result<DiscoveryResponse, Status>> {
        loop {
            let Eds { changes, stop, .. } = &mut self.eds;
            tokio::select! {
                () = stop.cancelled() => return None,
                message = self.incoming.message() => match message {
                    Ok(Some(request)) if request.resource_names.len() > MOST_CLUSTERS => {
                        let text = format!("more than {MOST_CLUSTERS} clusters");
                        return Some(Err(Status::invalid_argument(text)));
                    }
                    Ok(Some(request)) => {
                        if self.is_news(request) {
                            return Some(Ok(self.response()));
                        }
                    }
                    Ok(None) | Err(_) => return None,
                },
                changed = changes.changed(), if !self.clusters.is_empty() => {
                    changed.ok()?;
                    return Some(Ok(self.response()));
                }
            }
        }
    }

    /// Whether Envoy asks for something; it also answers each response.
    fn is_news(&mut self, request: DiscoveryRequest) -> bool {
        if let Some(refusal) = request.error_detail {
            tracing::warn!(
                reason = refusal.message,
                "Envoy refuses the endpoints it was told"
            );
        }
        let is_first = request.response_nonce.is_empty();
        let is_other = request.resource_names != self.clusters;
        self.clusters = request.resource_names;
        (is_first || is_other) && !self.clusters.is_empty()
    }

    fn response(&mut self) -> DiscoveryResponse {
        self.version += 1;
        self.eds.changes.mark_unchanged();
        let snapshot = (self.eds.snapshots)();
        let resources = self.clusters.iter().map(|cluster| Resource {
            type_url: TYPE_URL.to_owned(),
            value: assignment(cluster, &snapshot).encode_to_vec(),
        });
        DiscoveryResponse {
            version_info: self.version.to_string(),
            resources: resources.collect(),
            type_url: TYPE_URL.to_owned(),
            nonce: self.version.to_string(),
        }
    }
}

fn assignment(cluster: &str, snapshot: &Snapshot) -> ClusterLoadAssignment {
    let endpoint = |address: std::net::SocketAddr| LbEndpoint {
        endpoint: Some(Endpoint {
            address: Some(Address {
                socket_address: Some(SocketAddress {
                    address: address.ip().to_string(),
                    port_value: address.port().into(),
                }),
            }),
        }),
    };
    let endpoints = snapshot.endpoints.iter();
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![Locality {
            lb_endpoints: endpoints.map(|one| endpoint(one.socket_addr())).collect(),
        }],
    }
}
