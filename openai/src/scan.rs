//! Reads the routing facts of a request body in one pass over its chunks.

mod chat;
mod extract;
mod finish;
mod prompt;
mod shape;
mod texts;

use thiserror::Error;

use crate::{
    RequestFacts,
    grpc::{self, Service},
    json::{LexError, Lexer},
};
use extract::Extractor;

/// Which API a body belongs to; decides the fields that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// `chat/completions` and its `/render`.
    ChatCompletions,
    /// `completions` and its `/render`.
    Completions,
    /// `embeddings`.
    Embeddings,
    /// `responses`.
    Responses,
    /// `conversations`.
    Conversations,
    /// `images/generations`.
    Images,
    /// Anthropic's `messages`.
    AnthropicMessages,
    /// vLLM's `inference/v1/generate`.
    VllmGenerate,
    /// SGLang's `generate`.
    SglangGenerate,
    /// A gRPC message.
    Grpc(Service),
}

impl BodyKind {
    /// Upstream's text for a body that lacks the one field its API cannot do without.
    pub const fn invalid_text(self) -> &'static str {
        match self {
            Self::ChatCompletions => "invalid chat completions request: must have valid messages field",
            Self::Completions => "invalid completions request: must have prompt field",
            Self::Embeddings => "invalid embeddings request: must have input field",
            Self::Responses => "invalid responses request: must have input field",
            Self::Conversations => "invalid conversations request: must have items field",
            Self::Images => "invalid images generations request: must have prompt field",
            Self::AnthropicMessages => "invalid messages request: must have at least one message",
            Self::VllmGenerate => "invalid generate request: must have token_ids field",
            Self::SglangGenerate => "invalid generate request: must have input_ids field",
            Self::Grpc(_) => "invalid gRPC request: must have tokenized or text input",
        }
    }

    /// Whether such a body names a model.
    pub const fn names_model(self) -> bool {
        !matches!(self, Self::SglangGenerate | Self::Grpc(Service::Vllm(_)))
    }
}

/// Caps on what is read from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest body in bytes.
    pub max_bytes: usize,
    /// Most open brackets at a time.
    pub max_depth: usize,
}

impl Default for Limits {
    /// 64 MiB and 128 levels.
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_depth: 128,
        }
    }
}

/// Why a body was refused. Texts go to the client.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScanError {
    /// Not well-formed JSON.
    #[error("error unmarshaling request bodyMap: {reason} (byte {offset})")]
    Syntax {
        /// Offset of the offending byte.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A field has a type its API does not know.
    #[error("error unmarshaling request bodyMap: field {field} must be {expected} (byte {offset})")]
    WrongType {
        /// The top-level member, or `request body` for the document itself.
        field: &'static str,
        /// The type it must have.
        expected: &'static str,
        /// Offset of the value.
        offset: usize,
    },
    /// Nested deeper than [`Limits::max_depth`].
    #[error(
        "error unmarshaling request bodyMap: more than {limit} nested arrays and objects (byte {offset})"
    )]
    TooDeep {
        /// The limit.
        limit: usize,
        /// Offset of the bracket that went too deep.
        offset: usize,
    },
    /// Longer than [`Limits::max_bytes`].
    #[error("request body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Well-formed, but without the field its API needs; the text is upstream's.
    #[error("{0}")]
    Invalid(&'static str),
}

impl ScanError {
    /// HTTP status of this error: 413 for an oversized body, else 400.
    pub const fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            _ => 400,
        }
    }
}

/// Scans one request body as its chunks arrive; chunks may be cut anywhere.
#[derive(Debug)]
pub struct RequestScanner {
    limits: Limits,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Json(Box<Json>),
    /// Read at its end.
    Grpc(Service, Vec<u8>),
}

#[derive(Debug)]
struct Json {
    lexer: Lexer,
    extractor: Extractor,
}

impl RequestScanner {
    /// A scanner for one body of `kind`.
    pub fn new(kind: BodyKind, limits: Limits) -> Self {
        let format = match kind {
            BodyKind::Grpc(service) => Format::Grpc(service, Vec::new()),
            kind => Format::Json(Box::new(Json {
                lexer: Lexer::new(limits.max_depth),
                extractor: Extractor::new(kind),
            })),
        };
        Self { limits, format }
    }

    /// The body will have so many bytes, as its `Content-Length` says: memory for its text is taken at once. A wrong
    /// number costs memory up to the limit, and no more.
    #[must_use]
    pub fn expecting(mut self, bytes: usize) -> Self {
        if let Format::Json(json) = &mut self.format {
            json.extractor.expect(bytes.min(self.limits.max_bytes));
        }
        self
    }

    /// Scans the next chunk. After an error the scanner must not be used again.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ScanError> {
        let consumed = match &self.format {
            Format::Json(json) => json.lexer.consumed(),
            Format::Grpc(_, body) => body.len(),
        };
        if consumed + chunk.len() > self.limits.max_bytes {
            return Err(ScanError::TooLarge {
                limit: self.limits.max_bytes,
            });
        }
        let limit = self.limits.max_depth;
        match &mut self.format {
            Format::Json(json) => {
                let Json { lexer, extractor } = &mut **json;
                lexer.push(chunk, extractor).map_err(|error| refuse(error, limit))
            }
            Format::Grpc(_, body) => {
                body.extend_from_slice(chunk);
                Ok(())
            }
        }
    }

    /// The body ended: checks that it is complete and has what its API needs.
    pub fn finish(self) -> Result<RequestFacts, ScanError> {
        let limit = self.limits.max_depth;
        match self.format {
            Format::Json(json) => {
                let Json {
                    mut lexer,
                    mut extractor,
                } = *json;
                lexer
                    .finish(&mut extractor)
                    .map_err(|error| refuse(error, limit))?;
                extractor.into_facts()
            }
            Format::Grpc(service, body) => grpc::request(service, &body, self.limits),
        }
    }
}

fn refuse(error: LexError<ScanError>, limit: usize) -> ScanError {
    match error {
        LexError::Syntax { offset, reason } => ScanError::Syntax { offset, reason },
        LexError::Depth { offset } => ScanError::TooDeep { limit, offset },
        LexError::Stopped(refusal) => refusal,
    }
}

#[cfg(test)]
mod tests;
