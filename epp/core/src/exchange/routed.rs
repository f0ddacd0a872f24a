//! A decision in the terms of a transport.

use std::sync::Arc;

use bytes::Bytes;
use llmd_epp_api::{Endpoint, ErrorCode, InferenceRequest, Metadata, Rejection};
use llmd_openai::{Span, header};

use super::select::{HeaderChange, Selection};

/// Where a request goes and what changes on its way.
#[derive(Clone, Debug)]
pub struct Routed {
    /// Chosen endpoints in order of preference; never empty.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Their targets joined by commas: the value of `x-gateway-destination-endpoint`.
    pub destination: Arc<str>,
    /// Headers to set beside the destination.
    pub set_headers: Vec<HeaderChange>,
    /// Client headers that must not reach the engine (lower case).
    pub remove_headers: Vec<Box<str>>,
    /// Dynamic metadata for the proxy.
    pub metadata: Vec<Metadata>,
    /// Where the body's model name is and what takes its place; `None` leaves the body as it is.
    pub model_splice: Option<(Span, Arc<str>)>,
    /// Takes the place of a compressed body whose model name changes; `content-encoding` is then among
    /// the headers to remove.
    pub decoded_body: Option<Bytes>,
}

impl Routed {
    /// What `selection` means for `request`.
    pub(super) fn of(
        request: &InferenceRequest,
        selection: &Selection,
        decoded: Option<&Bytes>,
    ) -> Result<Self, Rejection> {
        let destination: Arc<str> = match (&selection.destination, &selection.endpoints[..]) {
            (_, []) => {
                return Err(Rejection::new(
                    ErrorCode::Internal,
                    "results must be greater than zero",
                ));
            }
            (Some(destination), _) => Arc::clone(destination),
            (None, [only]) => Arc::clone(only.target()),
            (None, several) => {
                let targets: Vec<&str> = several.iter().map(|endpoint| &**endpoint.target()).collect();
                targets.join(",").into()
            }
        };
        let is_set = |name: &str| {
            name == header::DESTINATION || selection.set_headers.iter().any(|change| &*change.name == name)
        };
        let remove_headers = request.headers.iter().map(|(name, _)| name);
        let is_unwanted = |name: &&str| {
            header::is_routing_output(name) || selection.remove_headers.iter().any(|other| **other == **name)
        };
        let remove_headers = remove_headers.filter(is_unwanted).filter(|name| !is_set(name));
        let model_splice = request
            .facts
            .model
            .as_ref()
            .filter(|model| !request.target_model.is_empty() && model.value != *request.target_model)
            .and_then(|model| Some((model.span?, Arc::clone(&request.target_model))));
        let decoded_body = decoded.filter(|_| model_splice.is_some()).cloned();
        let mut remove_headers: Vec<Box<str>> = remove_headers.map(Into::into).collect();
        if decoded_body.is_some() {
            remove_headers.push("content-encoding".into());
        }
        Ok(Self {
            endpoints: selection.endpoints.clone(),
            destination,
            set_headers: selection.set_headers.clone(),
            remove_headers,
            metadata: selection.metadata.clone(),
            model_splice,
            decoded_body,
        })
    }
}
