//! OpenAI-shaped HTTP bodies: bytes in, facts out. No async, no I/O.
//!
//! Takes in: chunks of request and response bodies as they arrive.
//! Holds: parser state of one body, a few words besides the prompt text.
//! Gives out: [`RequestFacts`] (model, stream flag, token caps, prompt), splices that change a
//! model name and nothing else, usage and events of responses, error bodies, header names.
//!
//! ```text
//!  request chunks ─▶ RequestScanner ─▶ RequestFacts ─▶ splice_model ─▶ the same bytes, one name changed
//!  response chunks ─▶ ResponseReader ─▶ Usage, model restored
//! ```
//!
//! [`continuation`] carries on a streamed answer whose engine died.

pub mod cached_tokens;
pub mod continuation;
pub mod edit;
pub mod encoding;
pub mod error_body;
pub mod facts;
pub mod grpc;
pub mod header;
pub mod json;
pub mod media;
pub mod rename;
pub mod response;
pub mod scan;
pub mod splice;
pub mod sse;
pub mod usage;

pub use cached_tokens::CachedTokens;
pub use continuation::{NotContinuable, Seam, StreamFollower, check_continuable, continue_request};
pub use edit::{Edit, EditError, edit};
pub use encoding::{DecodeError, Encoding, UnknownEncoding};
pub use error_body::{ErrorCode, error_body};
pub use facts::{ModelField, Prompt, PromptInput, RequestFacts, Span};
pub use media::{MediaPart, Modality};
pub use rename::Rename;
pub use response::{ResponseMode, ResponseReader};
pub use scan::{BodyKind, Limits, RequestScanner, ScanError};
pub use splice::splice_model;
pub use usage::Usage;
