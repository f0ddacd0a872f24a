//! Journeys on a Kubernetes with real nodes: real pods of our image, the real Envoy, the official client.

mod rendered;
mod support;
