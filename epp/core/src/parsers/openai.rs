//! `openai-parser`: JSON bodies of the OpenAI API.

use llmd_openai::BodyKind;

use super::Parser;

/// Claims the OpenAI paths for `http` and `kubernetes.io/h2c` pools; its bodies carry a model that
/// may be replaced, its responses carry usage.
pub static OPENAI_PARSER: Parser = Parser {
    type_name: "openai-parser",
    paths: &[
        ("chat/completions", BodyKind::ChatCompletions),
        ("chat/completions/render", BodyKind::ChatCompletions),
        ("completions", BodyKind::Completions),
        ("completions/render", BodyKind::Completions),
        ("embeddings", BodyKind::Embeddings),
        ("responses", BodyKind::Responses),
        ("conversations", BodyKind::Conversations),
        ("images/generations", BodyKind::Images),
    ],
    protocols: &["http", "kubernetes.io/h2c"],
    rewrites_model: true,
    reads_response: true,
};
