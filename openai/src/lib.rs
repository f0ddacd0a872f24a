//! OpenAI-shaped HTTP bodies: bytes in, facts out. No async, no I/O.
//!
//! Takes in: chunks of request and response bodies as they arrive.
//! Holds: parser state of one body, a few words besides the prompt text.
//! Gives out: [`RequestFacts`] (model, stream flag, token caps, prompt), splices that change a
//! model name and nothing else, usage and events of responses, error bodies, header names.
//!
//! ```text
//!  request chunks ─▶ RequestScanner ─▶ RequestFacts ─▶ Splice ─▶ the same bytes, one name changed
//!  response chunks ─▶ ResponseReader ─▶ Usage, model restored
//! ```

pub mod facts;

pub use facts::{ModelField, Prompt, PromptInput, RequestFacts, Span};
