//! Configuration entries of the body parsers.

pub mod anthropic_parser;
pub mod openai_parser;
pub mod passthrough_parser;
pub mod sglanghttp_parser;
pub mod vertexai_parser;
pub mod vllmgrpc_parser;
pub mod vllmhttp_parser;
