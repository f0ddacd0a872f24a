//! `openai-parser`: JSON bodies of the OpenAI API.

use llmd_openai::BodyKind;

use super::{Parser, Path};

/// Claims the OpenAI paths for `http` and `kubernetes.io/h2c` pools; its bodies carry a model that
/// may be replaced, its responses carry usage.
pub static OPENAI_PARSER: Parser = Parser {
    type_name: "openai-parser",
    paths: &[
        Path::read("chat/completions", BodyKind::ChatCompletions),
        Path::read("chat/completions/render", BodyKind::ChatCompletions),
        Path::read("completions", BodyKind::Completions),
        Path::read("completions/render", BodyKind::Completions),
        Path::read("embeddings", BodyKind::Embeddings),
        Path::read("responses", BodyKind::Responses),
        Path::read("conversations", BodyKind::Conversations),
        Path::read("images/generations", BodyKind::Images),
    ],
    protocols: &["http", "kubernetes.io/h2c"],
};
