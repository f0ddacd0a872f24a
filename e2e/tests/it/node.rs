//! Journeys on a Kubernetes with real nodes: real pods of our image, the real Envoy, the official client.

mod faults;
mod operator;
mod prefill_decode;
mod rendered;
mod support;
mod swap_in;
