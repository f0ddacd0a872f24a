//! Which foreign kinds the API server serves.

use kube::Client;
use kube::discovery;
use llmd_crds::ResourceClaimTemplate;

/// Foreign kinds that make a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// `InferencePool` of `inference.networking.k8s.io/v1`.
    pub(crate) inference_pool: bool,
    /// `HTTPRoute` of `gateway.networking.k8s.io/v1`.
    pub(crate) http_route: bool,
    /// `LeaderWorkerSet` of `leaderworkerset.x-k8s.io/v1`.
    pub(crate) leader_worker_set: bool,
    /// `ResourceClaimTemplate` of `resource.k8s.io/v1`.
    pub(crate) resource_claims: bool,
    /// `DisaggregatedSet` of `disaggregatedset.x-k8s.io/v1`.
    pub(crate) disaggregated_set: bool,
}

impl Capabilities {
    /// Asks the API server. An answer other than "there is no such group" is an error: a definition
    /// that cannot be seen for a moment must not look like one that is gone.
    pub(crate) async fn discover(client: &Client) -> Result<Self, kube::Error> {
        Ok(Self {
            inference_pool: serves(client, "inference.networking.k8s.io", "v1", "InferencePool").await?,
            leader_worker_set: serves(client, "leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet").await?,
            disaggregated_set: serves(client, "disaggregatedset.x-k8s.io", "v1", "DisaggregatedSet").await?,
            resource_claims: serves(
                client,
                ResourceClaimTemplate::GROUP,
                "v1",
                ResourceClaimTemplate::KIND,
            )
            .await?,
            http_route: serves(client, "gateway.networking.k8s.io", "v1", "HTTPRoute").await?,
        })
    }
}

async fn serves(client: &Client, group: &str, version: &str, kind: &str) -> Result<bool, kube::Error> {
    match discovery::pinned_group(client, &kube::core::GroupVersion::gv(group, version)).await {
        Ok(group) => Ok(group.recommended_kind(kind).is_some()),
        // The page of an unknown group is plain text: only the code says that it is not there.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(kube::Error::Discovery(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
