//! `openai-parser`: JSON bodies of the OpenAI API.

use llmd_openai::BodyKind;

use super::{Parser, Path};

/// Claims the OpenAI paths for `http` and `kubernetes.io/h2c` pools; its bodies carry a model that
/// may be replaced, its responses carry usage.
pub static OPENAI_PARSER: Parser = Parser {
    type_name: "openai-parser",
    paths: &[
        Path::json("chat/completions", BodyKind::ChatCompletions),
        Path::json("chat/completions/render", BodyKind::ChatCompletions),
        Path::json("completions", BodyKind::Completions),
        Path::json("completions/render", BodyKind::Completions),
        Path::json("embeddings", BodyKind::Embeddings),
        Path::json("responses", BodyKind::Responses),
        Path::json("conversations", BodyKind::Conversations),
        Path::json("images/generations", BodyKind::Images),
    ],
    protocols: &["http", "kubernetes.io/h2c"],
};
