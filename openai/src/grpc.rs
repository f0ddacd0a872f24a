//! gRPC bodies: what routing needs of a request message, and token counts of response messages.
//!
//! Framing: a flag (non-zero: compressed), a length of four bytes, big-endian, then protobuf.

mod vertex;
mod vllm;

use bytes::{Buf, BytesMut};

use crate::{Limits, RequestFacts, ScanError, Usage};

pub use vertex::Prediction;
pub use vllm::Method;

const HEAD: usize = 5;
/// A response message longer than this is passed over.
const LONGEST_RESPONSE: usize = 1 << 20;

/// Which message of which service a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// vLLM's engine service.
    Vllm(Method),
    /// Vertex AI's prediction service.
    Vertex(Prediction),
}

/// The facts of a whole request body: one message.
///
/// # Errors
/// Compressed, cut off, no protobuf, or without an input.
pub fn request(service: Service, body: &[u8], limits: Limits) -> Result<RequestFacts, ScanError> {
    let cut = ScanError::Invalid("invalid gRPC request: the message is cut off");
    let Some((&[flag, a, b, c, d], rest)) = body.split_first_chunk::<HEAD>() else {
        return Err(cut);
    };
    if flag != 0 {
        return Err(ScanError::Invalid(
            "invalid gRPC request: compressed messages are not supported",
        ));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let message = rest.get(..length).ok_or(cut)?;
    match service {
        Service::Vllm(method) => vllm::request(method, message),
        Service::Vertex(method) => vertex::request(method, message, limits),
    }
}

fn unreadable(_: prost::DecodeError) -> ScanError {
    ScanError::Invalid("invalid gRPC request: not the message of its method")
}

/// Reads the token counts of a response that is passed on as it is.
#[derive(Debug)]
pub struct ResponseMessages {
    service: Service,
    pending: BytesMut,
    /// Bytes of a message that is passed over.
    skipped: usize,
}

impl ResponseMessages {
    /// A reader for one response.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            pending: BytesMut::new(),
            skipped: 0,
        }
    }

    /// Reads the next chunk; returns the number of whole messages in it.
    pub fn push(&mut self, chunk: &[u8], usage: &mut Usage) -> u64 {
        self.pending.extend_from_slice(chunk);
        let mut messages = 0;
        loop {
            let skip = self.skipped.min(self.pending.len());
            self.pending.advance(skip);
            self.skipped -= skip;
            let Some(&[flag, a, b, c, d]) = self.pending.first_chunk::<HEAD>() else {
                return messages;
            };
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if flag != 0 || length > LONGEST_RESPONSE {
                self.skipped = HEAD + length;
                messages += 1;
                continue;
            }
            if self.pending.len() < HEAD + length {
                return messages;
            }
            self.pending.advance(HEAD);
            let message = self.pending.split_to(length);
            match self.service {
                Service::Vllm(method) => usage.merge(vllm::usage(method, &message)),
                Service::Vertex(_) => vertex::usage(&message, usage),
            }
            messages += 1;
        }
    }
}

#[cfg(test)]
mod tests;
