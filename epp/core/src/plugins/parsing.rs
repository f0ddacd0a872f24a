//! Configuration entries of the body parsers.

pub mod openai_parser;
pub mod passthrough_parser;
