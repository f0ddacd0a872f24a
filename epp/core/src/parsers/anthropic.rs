//! `anthropic-parser`: JSON bodies of the Anthropic Messages API.

use llmd_openai::BodyKind;

use super::{Parser, Path};

/// Claims `messages`, and `messages/count_tokens`, which passes unread with its response.
pub static ANTHROPIC_PARSER: Parser = Parser {
    type_name: "anthropic-parser",
    paths: &[
        Path::read("messages", BodyKind::AnthropicMessages),
        Path::unread("messages/count_tokens"),
    ],
    protocols: &["http", "kubernetes.io/h2c"],
};
