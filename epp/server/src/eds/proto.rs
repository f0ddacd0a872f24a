//! The messages of Envoy's endpoint discovery that are read or written, field for field.
//!
//! Source: envoy `api/envoy/service/discovery/v3/discovery.proto`, `config/endpoint/v3/endpoint.proto`,
//! `config/core/v3/address.proto`.

use prost::Message;

/// What Envoy asks for, and its answer to what it was told.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryRequest {
    /// Names of clusters.
    #[prost(string, repeated, tag = "3")]
    pub resource_names: Vec<String>,
    /// Of the response this answers; empty in the first request.
    #[prost(string, tag = "5")]
    pub response_nonce: String,
    /// Why the response was refused.
    #[prost(message, optional, tag = "6")]
    pub error_detail: Option<Refusal>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub struct Refusal {
    /// In words.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// What Envoy is told.
#[derive(Clone, PartialEq, Message)]
pub struct DiscoveryResponse {
    /// Rises with each response of a stream.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// One [`ClusterLoadAssignment`] per name.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// [`super::TYPE_URL`].
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Names this response.
    #[prost(string, tag = "5")]
    pub nonce: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// [`super::TYPE_URL`].
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// The endpoints of a cluster.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterLoadAssignment {
    /// The cluster.
    #[prost(string, tag = "1")]
    pub cluster_name: String,
    /// One, with all.
    #[prost(message, repeated, tag = "2")]
    pub endpoints: Vec<Locality>,
}

/// Endpoints of one place.
#[derive(Clone, PartialEq, Message)]
pub struct Locality {
    /// The endpoints.
    #[prost(message, repeated, tag = "2")]
    pub lb_endpoints: Vec<LbEndpoint>,
}

/// An endpoint.
#[derive(Clone, PartialEq, Message)]
pub struct LbEndpoint {
    /// Where it is.
    #[prost(message, optional, tag = "1")]
    pub endpoint: Option<Endpoint>,
}

/// Where an endpoint is.
#[derive(Clone, PartialEq, Message)]
pub struct Endpoint {
    /// Its address.
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
}

/// An address.
#[derive(Clone, PartialEq, Message)]
pub struct Address {
    /// IP and port.
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// IP and port.
#[derive(Clone, PartialEq, Message)]
pub struct SocketAddress {
    /// The IP address.
    #[prost(string, tag = "2")]
    pub address: String,
    /// The port.
    #[prost(uint32, tag = "3")]
    pub port_value: u32,
}
